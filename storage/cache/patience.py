"""How long one waits for a text that somebody else is embedding."""

import time
from collections.abc import Callable

SHORTEST_S, LONGEST_S = 0.005, 0.25


class Patience:
    """Rests between looks, longer each time. ``over``: the texts are embedded again, whoever else does."""

    def __init__(
        self,
        most_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._until = clock() + most_s
        self._next_s = SHORTEST_S

    @property
    def over(self) -> bool:
        return self._clock() >= self._until

    def rest(self) -> None:
        self._sleep(self._next_s)
        self._next_s = min(LONGEST_S, 1.5 * self._next_s)
