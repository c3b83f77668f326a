"""Keeps what this process holds for a limited time. One thread per process; most batches end before it first looks."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from penstock.settings.logs import failed_at

log = logging.getLogger(__name__)
T = TypeVar("T")


class LeaseKeeper(Generic[T]):
    """Renews what is held every ``every_s``. What ``renew`` says is lost (False) is kept no longer.

    Whoever lost a lease hears of it when recording the outcome: that is where it counts.
    """

    def __init__(self, renew: Callable[[T], bool], *, every_s: float) -> None:
        self._renew = renew
        self._every_s = every_s
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
        while not self._stop.wait(self._every_s):
            with self._lock:
                several = list(self._held)
            for lease in several:
                if not self._keep(lease):
                    self.drop(lease)

    def _keep(self, lease: T) -> bool:
        try:
            return self._renew(lease)
        except Exception as error:  # noqa: BLE001 whatever it is, the next turn may still be in time
            log.warning("A lease could not be renewed, trying again soon: %s.", failed_at(error))
            return True
