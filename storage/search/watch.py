"""The thread that has new versions looked for: at once of the generations it was told of, of all others by polling.

It neither asks the catalog nor opens anything: whoever makes it says how to look.
"""

import threading
from collections.abc import Callable

from ..ids import GenerationId


class VersionWatch:
    """Calls ``look`` in a daemon thread, which the first ``start`` begins. Safe between threads.

    Args:
        look: looks for new versions of some generations, and never raises.
        followed: tells of which generations to look for them every ``poll_s``.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        look: Callable[[set[GenerationId]], None],
        followed: Callable[[], set[GenerationId]],
        poll_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._look = look
        self._followed = followed
        self._poll_s = poll_s
        self._clock = clock
        self._told = threading.Condition()  # never held while ``look`` or ``followed`` are called
        self._due: set[GenerationId] = set()
        self._closed = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look; nothing when that was done already."""
        with self._told:
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name="snapshots", daemon=True)
                self._thread.start()

    def tell(self, generation_id: GenerationId) -> None:
        """Have this generation looked at soon; returns at once."""
        with self._told:
            self._due.add(generation_id)
            self._told.notify_all()

    def close(self) -> None:
        """Look no more, and wait for the end of a look that is under way."""
        with self._told:
            self._closed = True
            self._told.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        poll_at = self._clock() + self._poll_s
        while True:
            with self._told:
                self._told.wait_for(lambda: self._due or self._closed, timeout=max(0.0, poll_at - self._clock()))
                if self._closed:
                    return
                due, self._due = self._due, set()
            if self._clock() >= poll_at:
                due, poll_at = due | self._followed(), self._clock() + self._poll_s
            self._look(due)
