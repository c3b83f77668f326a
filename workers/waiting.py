"""Places for requests that wait for a version: each holds a thread of the role, and others want to be answered."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

from .errors import TooManyWaits

RETRY_S = 2.0


class WaitingPlaces:
    """Half of the threads of a role may wait, at least one. Safe between threads."""

    def __init__(self, threads: int) -> None:
        self.most = max(1, threads // 2)
        self._free = BoundedSemaphore(self.most)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Wait during the block. Raises TooManyWaits."""
        if not self._free.acquire(blocking=False):
            raise TooManyWaits(
                f"{self.most} requests wait for a version here already: ask without min_token, or again later",
                retry_after_s=RETRY_S,
            )
        try:
            yield
        finally:
            self._free.release()
