"""Says every few seconds that this role process is there, and when its work last moved. Lost beats harm nothing."""

import logging
import threading
from collections.abc import Callable

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.presence import Presence

from .liveness import Liveness

log = logging.getLogger(__name__)
EVERY_S = 5.0


class Heartbeat:
    """Presence of one role process. ``busy`` says how many tasks run now; None: it is a loop that moves by itself."""

    def __init__(self, presence: Presence, *, role: str, liveness: Liveness, busy: Callable[[], int] | None) -> None:
        self._presence = presence
        self._role = role
        self._liveness = liveness
        self._busy = busy
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @classmethod
    def of(cls, settings: Settings, *, role: str, liveness: Liveness, busy: Callable[[], int] | None) -> "Heartbeat":
        return cls(wiring.open_presence(settings), role=role, liveness=liveness, busy=busy)

    def start(self) -> None:
        """Beat from a thread of its own. Not in a process that will fork: see `beat`."""
        self._thread.start()

    def close(self) -> None:
        """Beat no more, and say so."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._presence.leave(self._role)

    def beat(self) -> None:
        """Beat once, for callers with a timer. Who has nothing to do makes progress; who is busy has to show it."""
        busy = self._busy() if self._busy is not None else None
        if busy == 0:
            self._liveness.moved()
        try:
            self._presence.beat(self._role, {"progress_at": self._liveness.progress_at, "doing": busy})
        except Exception:  # presence is for people; no failure of it may stop work
            log.debug("This process could not say that it is there.", exc_info=True)

    def _run(self) -> None:
        self.beat()
        while not self._stop.wait(EVERY_S):
            self.beat()
