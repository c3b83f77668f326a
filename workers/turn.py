"""How long one batch of the chunk role goes on before what is left of it waits for its next turn."""

import time
from collections.abc import Callable

TURN_S = 0.15  # nobody waits behind a batch of slow documents
LONGEST_S = 2.0  # where nobody waits at all: so much work is lost when the process dies or has to stop
LOOK_S = 0.03  # between two looks whether somebody waits: each costs about a millisecond


class Turn:
    """Begins now.

    Args:
        others_wait: whether something waits that comes first; told whether this has had its turn (see `TURN_S`). Where
            nothing does, it goes on: a turn that ends early costs the ledger two transactions more.
    """

    def __init__(self, others_wait: Callable[[bool], bool], *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._others_wait = others_wait
        self._clock = clock
        self._began = self._looked_at = clock()

    def is_over(self) -> bool:
        now = self._clock()
        if now - self._began > LONGEST_S:
            return True
        if now - self._looked_at <= LOOK_S:
            return False
        self._looked_at = now
        return self._others_wait(now - self._began > TURN_S)
