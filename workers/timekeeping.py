"""The beat's part in schedules: opens runs when it is time, takes back what dead workers held, and sends for workers.

All it knows is in the catalog; two of it, or a tick too many, do no harm. A message carries nothing: whoever reads it
takes the run whose turn it is.
"""

import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from penstock.settings.logs import failed_at
from penstock.storage import schedules
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import StorageError

log = logging.getLogger(__name__)

EVERY_S = 1.0
OUTAGE_PAUSE_S = 5.0


class Summons(Protocol):
    """The queue of runs as the beat sees it. Its methods raise anything when the broker does not answer."""

    def waiting(self) -> int:
        """Return how many messages nobody has taken yet."""

    def send(self, count: int) -> None:
        """Send so many messages."""


class Timekeeper:
    """``most``: how many runs may be going at once, and so how many workers are worth sending for."""

    def __init__(
        self,
        catalog: Catalog,
        summons: Summons,
        *,
        most: int,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._catalog = catalog
        self._summons = summons
        self._most = most
        self._clock = clock
        self._chance = chance
        self._next_at = 0.0
        self._outage = False

    def tick(self) -> float:
        """Do what is due, if it is time to look, and return the seconds until the next look. Never raises."""
        left_s = self._next_at - time.monotonic()
        if left_s > 0:
            return left_s
        try:
            self.turn()
        except Exception as error:  # noqa: BLE001 an outage of anything must not end the loop
            if not self._outage:
                told = str(error) if isinstance(error, StorageError) else failed_at(error)
                log.warning("Schedules wait; what is due meanwhile is made up for once: %s.", told)
            self._outage = True
        else:
            if self._outage:
                log.info("Schedules go on.")
            self._outage = False
        pause_s = OUTAGE_PAUSE_S if self._outage else EVERY_S
        self._next_at = time.monotonic() + pause_s
        return pause_s

    def turn(self) -> None:
        """Open what is due, and send for workers where runs wait."""
        now = self._clock()
        opened = schedules.open_due_runs(self._catalog, now=now, chance=self._chance)
        if opened.opened or opened.skipped:
            log.info("Opened %d runs of schedules, skipped %d.", opened.opened, opened.skipped)
        if taken := schedules.take_back_runs(self._catalog, now=now):
            log.info("Took %d runs of schedules back from workers that are gone.", taken)
        due = schedules.count_due(self._catalog, now=now, most=self._most)
        if due and (wanted := due - self._summons.waiting()) > 0:
            self._summons.send(wanted)
