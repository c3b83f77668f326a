"""Keeps the claims of running batches alive. One thread per process; most batches end before it first looks."""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(eq=False)
class Held(Generic[T]):
    """A claim being kept. ``lost``: another worker may have it now, so nothing may be written in its name."""

    claim: T
    lost: threading.Event = field(default_factory=threading.Event)


class LeaseKeeper(Generic[T]):
    """Renews what is held every ``every_s``. A renewal that fails for a moment is tried again at the next turn."""

    def __init__(self, renew: Callable[[T], bool], *, every_s: float) -> None:
        self._renew = renew
        self._every_s = every_s
        self._held: set[Held[T]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
        self._thread.start()

    @contextmanager
    def hold(self, claim: T) -> Iterator[Held[T]]:
        """Keep ``claim`` until the block ends."""
        held = Held(claim)
        with self._lock:
            self._held.add(held)
        try:
            yield held
        finally:
            with self._lock:
                self._held.discard(held)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._lock:
                several = [held for held in self._held if not held.lost.is_set()]
            for held in several:
                self._keep(held)

    def _keep(self, held: Held[T]) -> None:
        try:
            kept = self._renew(held.claim)
        except Exception:  # noqa: BLE001 whatever the catalog says, the next turn may still be in time
            log.warning("A lease could not be renewed; trying again in %.0f s.", self._every_s, exc_info=True)
            return
        if not kept:
            held.lost.set()
