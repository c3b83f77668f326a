"""How often a writer publishes: at once after a pause, and less often the more publishing costs."""

import time
from collections.abc import Callable

LEAST_S = 0.1
MOST_S = 1.0
SHARE = 4.0  # publishing may take about a fifth of a busy writer's time


class Pace:
    """The earliest moment of the next publish. What becomes ready until then goes into it together."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._next_at = 0.0

    def wait(self) -> None:
        """Return when it is time."""
        remaining_s = self._next_at - self._clock()
        if remaining_s > 0:
            self._sleep(remaining_s)

    def published(self, took_s: float) -> None:
        """Take note of a publish that just ended."""
        self._next_at = self._clock() + min(MOST_S, max(LEAST_S, SHARE * took_s))
