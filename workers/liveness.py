"""What a role process and its pool children tell each other: when work last moved, and that it is time to stop.

Made before the pool forks, so the children share its memory. It must not lock: a killed child would never unlock.
"""

import time
from collections.abc import Callable
from multiprocessing.sharedctypes import RawValue


class Liveness:
    """Shared between one role process and its forked children."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._progress_at = RawValue("d", clock())
        self._stopping_at = RawValue("d", 0.0)

    @property
    def progress_at(self) -> float:
        """When a task last finished or the role's loop last turned, in seconds since 1970."""
        return float(self._progress_at.value)

    @property
    def stopping(self) -> bool:
        """Whether running tasks should hand back what they have not begun."""
        return bool(self._stopping_at.value)

    @property
    def stopping_s(self) -> float:
        """How long ago this process was told to stop; 0 when it was not."""
        return max(0.0, self._clock() - self._stopping_at.value) if self.stopping else 0.0

    def moved(self) -> None:
        self._progress_at.value = self._clock()

    def stop(self) -> None:
        if not self.stopping:  # told twice, the grace begins once
            self._stopping_at.value = self._clock()
