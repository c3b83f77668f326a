"""What a reader process holds, and whom a collector takes for dead.

A reader leases a version when it opens one that retention may end meanwhile: a past version, or one whose files it must
download for long. Maps of what is open need no lease; it is for the files that are still to be opened. There is one
statement per interval for all that a process holds, none while it holds nothing, and none per search.
"""

import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..catalog.engine import Catalog
from ..catalog.reader_leases import Beat, LeasedVersion, end_lapsed, end_leases, read_beats, renew_leases, take_lease

log = logging.getLogger(__name__)

RENEW_S = 60.0
LET_GO_S = 2 * RENEW_S  # after the last use of a lease it is given back, at the latest
LAPSED_S = 15 * 60.0  # a reader that was stopped for so long is none; it looks again before it opens anything


@dataclass
class _Hold:
    """One taking of a lease: who looks at an older one knows that it is another. ``used``: since the last renewal."""

    used: bool = True


class ReaderLeases:
    """The leases of this process. Safe between threads. A daemon thread renews them once there is one.

    A lease that nobody uses any more is kept for one more interval, for the next search of the same version.
    """

    def __init__(self, catalog: Catalog, *, renew_s: float = RENEW_S) -> None:
        self.reader = f"reader-{secrets.token_hex(12)}"
        self._catalog = catalog
        self._renew_s = renew_s
        self._users: Counter[LeasedVersion] = Counter()
        self._held: dict[LeasedVersion, _Hold] = {}
        self._ending: list[LeasedVersion] = []  # being given back: who wants one waits, or it would lose it unseen
        self._changed = threading.Condition()
        self._renewer: threading.Thread | None = None
        self._closed = False

    @contextmanager
    def using(self, leased: LeasedVersion, *, opening: bool = False) -> Iterator[None]:
        """Keep a version for the time of the block.

        ``opening``: files are going to be opened, so the catalog is asked even if the lease is thought to be held.

        Raises:
            NotKept: the version is over.
        """
        with self._changed:
            self._changed.wait_for(lambda: leased not in self._ending)
            self._users[leased] += 1
            held = self._held.get(leased)
            if held is not None:
                held.used = True
        try:
            if held is None or opening:
                take_lease(self._catalog, leased, reader=self.reader)
                with self._changed:
                    self._held[leased] = _Hold()
                    self._start()
            yield
        finally:
            with self._changed:
                self._users[leased] -= 1
                if not self._users[leased]:
                    del self._users[leased]

    def renew(self) -> None:
        """Give back what was not used since the last time, renew the rest, and forget what was lost meanwhile."""
        with self._changed:
            idle = [one for one, held in self._held.items() if not held.used and not self._users[one]]
            wanted = {one: held for one, held in self._held.items() if one not in set(idle)}
            for held in wanted.values():
                held.used = False
            self._held, self._ending = dict(wanted), idle
        if idle:
            self._give_back(idle)
        if not wanted:
            return
        lost = wanted.keys() - renew_leases(self._catalog, reader=self.reader)
        with self._changed:
            for one in lost:
                if self._held.get(one) is wanted[one]:  # else it was taken again meanwhile, and is there
                    del self._held[one]
        if lost:
            log.warning(
                "%d leases on versions ran out while this process stood still; it looks again before it opens them.",
                len(lost),
                extra={"action": "reader_leases_lost"},
            )

    def close(self) -> None:
        """Give everything back."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._renewer is not None:
            self._renewer.join()
        if self._held:
            try:
                end_leases(self._catalog, list(self._held), reader=self.reader)
            except Exception as error:  # noqa: BLE001  a collector ends them later
                log.warning("Leases were not given back: %s", error, extra={"action": "reader_leases_left"})

    def _give_back(self, idle: list[LeasedVersion]) -> None:
        ended = False
        try:
            end_leases(self._catalog, idle, reader=self.reader)
            ended = True
        finally:
            with self._changed:
                if not ended:  # next time: a row that nobody here knew of would be renewed with the others for ever
                    self._held.update((one, _Hold(used=False)) for one in idle)
                self._ending = []
                self._changed.notify_all()

    def _start(self) -> None:
        if self._renewer is None and not self._closed:
            self._renewer = threading.Thread(target=self._run, name="reader leases", daemon=True)
            self._renewer.start()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, timeout=self._renew_s):
                    return
            try:
                self.renew()
            except Exception as error:  # noqa: BLE001  the thread must outlive whatever the catalog does
                log.warning("Leases were not renewed: %s", error, extra={"action": "reader_leases_not_renewed"})


class LeaseWatch:
    """Watches the beats of all readers from one collecting process, with a clock that nobody sets."""

    def __init__(self, *, lapsed_s: float = LAPSED_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lapsed_s = lapsed_s
        self._clock = clock
        self._seen: dict[Beat, float] = {}  # since when

    def end_lapsed(self, catalog: Catalog) -> int:
        """End the leases whose beat has stood still for as long as this was watching. Returns how many."""
        now = self._clock()
        self._seen = {beat: self._seen.get(beat, now) for beat in read_beats(catalog)}
        lapsed = [beat for beat, since in self._seen.items() if now - since >= self._lapsed_s]
        if not lapsed:
            return 0
        with catalog.write("end_lapsed") as connection:
            return end_lapsed(connection, lapsed)
