"""How often a writer publishes: at once after a pause, and less often the more publishing costs.

Each generation rests for itself: whoever comes with few documents does not wait because somebody else publishes much.
"""

import time
from collections.abc import Callable

from penstock.storage.ids import GenerationId

LEAST_S = 0.1
MOST_S = 1.0
SHARE = 4.0  # publishing may take about a fifth of a busy writer's time
LOOK_S = 0.03  # between two looks for work of those that do not rest


class Pace:
    """Which generations rest. What becomes ready of one meanwhile goes into its next version together."""

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._clock = clock
        self._sleep = sleep
        self._rest_until: dict[GenerationId, float] = {}

    def resting(self) -> frozenset[GenerationId]:
        """Return the generations that were published a moment ago."""
        now = self._clock()
        self._rest_until = {one: until for one, until in self._rest_until.items() if until > now}
        return frozenset(self._rest_until)

    def doze(self) -> None:
        """Return at the end of the next rest, or soon: somebody else may have come with work."""
        if self._rest_until:
            self._sleep(max(0.0, min(LOOK_S, min(self._rest_until.values()) - self._clock())))

    def published(self, generation_id: GenerationId, took_s: float) -> None:
        """Take note of a publish that just ended."""
        self._rest_until[generation_id] = self._clock() + min(MOST_S, max(LEAST_S, SHARE * took_s))
