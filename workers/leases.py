"""Keeps what this process holds for a limited time. One thread per process; most batches end before it first looks."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from penstock.settings.logs import failed_at

log = logging.getLogger(__name__)
T = TypeVar("T")
TICK_S = 0.25  # how soon it notices that what is held must be given back


class LeaseKeeper(Generic[T]):
    """Renews what is held every ``every_s``. What ``renew`` says is lost (False) is kept no longer.

    Whoever lost a lease hears of it when recording the outcome: that is where it counts. Once ``overdue`` says so, what
    is still held goes to ``give_back``, in this thread, and is kept no longer.
    """

    def __init__(
        self,
        renew: Callable[[T], bool],
        *,
        every_s: float,
        overdue: Callable[[], bool] = lambda: False,
        give_back: Callable[[T], None] = lambda _lease: None,
    ) -> None:
        self._renew = renew
        self._every_s = every_s
        self._overdue = overdue
        self._give_back = give_back
        self._held: list[T] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, *leases: T) -> Iterator[None]:
        """Keep these leases until the block ends."""
        for lease in leases:
            self.add(lease)
        try:
            yield
        finally:
            for lease in leases:
                self.drop(lease)

    def add(self, lease: T) -> None:
        with self._lock:
            self._held.append(lease)

    def drop(self, lease: T) -> None:
        """Keep a lease no longer; no error when it was lost before."""
        with self._lock:
            self._held[:] = [other for other in self._held if other is not lease]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        renew_at = time.monotonic() + self._every_s
        while not self._stop.wait(min(TICK_S, self._every_s)):
            if self._overdue():
                for lease in self._several():
                    self.drop(lease)
                    self._return(lease)
            elif time.monotonic() >= renew_at:
                for lease in self._several():
                    if not self._keep(lease):
                        self.drop(lease)
                renew_at = time.monotonic() + self._every_s

    def _return(self, lease: T) -> None:
        try:
            self._give_back(lease)
        except Exception as error:  # noqa: BLE001 the others have to be given back too; this one ends by itself
            log.warning("A lease could not be given back: %s.", failed_at(error))

    def _several(self) -> list[T]:
        with self._lock:
            return list(self._held)

    def _keep(self, lease: T) -> bool:
        try:
            return self._renew(lease)
        except Exception as error:  # noqa: BLE001 whatever it is, the next turn may still be in time
            log.warning("A lease could not be renewed, trying again soon: %s.", failed_at(error))
            return True
