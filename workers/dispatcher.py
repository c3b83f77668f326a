"""Sends what the ledger says is ready, a little at a time, and takes back what nobody holds.

The ledger decides what is ready and which tenant is next; the queue is kept short so that losing it costs little.
A message that cannot be sent stays in the ledger and is sent again later; nothing here may end the loop.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from penstock.storage import ledger
from penstock.storage.catalog.engine import Catalog
from penstock.storage.notices import Notices

from .liveness import Liveness

log = logging.getLogger(__name__)

IDLE_S = 0.5  # what a lost notification may cost
PAUSE_S = 0.005  # notices that come together are served together
RECONCILE_EVERY_S = 5.0
OUTAGE_PAUSE_S = 2.0


@dataclass(frozen=True)
class Message:
    """One task to send: a batch id, or for a writer its shard."""

    task: str
    queue: str
    argument: str | int


class Sender(Protocol):
    """The queue as the dispatcher sees it."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send all of them. Raises anything when it is not certain that all arrived."""

    def waiting(self, queue: str) -> int:
        """Return how many messages nobody has taken yet. Raises anything when the broker does not answer."""
