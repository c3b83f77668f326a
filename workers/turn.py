"""How long one batch of the chunk role goes on before what is left of it waits for its next turn."""

import time
from collections.abc import Callable

LONGEST_S = 0.15  # nobody waits behind a batch of slow documents
LOOK_S = 0.03  # between two looks whether something short waits: each costs about a millisecond


class Turn:
    """Begins now.

    Args:
        short_waits: whether a short batch waits that comes first: then the turn ends early. Long ones have the time.
    """

    def __init__(self, short_waits: Callable[[], bool], *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._short_waits = short_waits
        self._clock = clock
        self._began = self._looked_at = clock()

    def is_over(self) -> bool:
        now = self._clock()
        if now - self._began > LONGEST_S:
            return True
        if now - self._looked_at <= LOOK_S:
            return False
        self._looked_at = now
        return self._short_waits()
