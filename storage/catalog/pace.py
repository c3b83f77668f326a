"""How fast a job moves, as its row tells it: the same to every reader, however many there are. It runs no SQL.

An exponentially decaying count (Cormode, Korn, Tirthapura, "Exponentially decayed aggregates on data streams", ICDE
2008): three numbers, renewed in the transaction that ends a batch, in place of samples that somebody had to keep.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

WINDOW_S = 30.0  # what happened so long ago counts a third: a batch on a busy machine may take most of it
LEAST_S = 2.0  # two threads that end at the same moment are no pace
PAUSE_S = 3 * WINDOW_S  # then it begins anew: a job that was paused is not slow


@dataclass(frozen=True)
class Pace:
    """``chunks``: those embedded since ``since``, as much as they still counted at the moment ``at``."""

    chunks: float
    at: float
    since: float

    @classmethod
    def begun(cls, now: float) -> Self:
        """Return the pace after the first batch, which only starts the clock: nobody knows when its work began."""
        return cls(chunks=0.0, at=now, since=now)

    def after(self, chunks: int, *, now: float) -> "Pace":
        """Return the pace once ``chunks`` more are embedded."""
        if now - self.at > PAUSE_S:
            return Pace.begun(now)
        return Pace(chunks=self.chunks * self._decay(now) + chunks, at=max(now, self.at), since=self.since)

    def per_s(self, now: float) -> float | None:
        """Return chunks per second; None while too little was seen, or nothing for long."""
        seen_s, now = self.at - self.since, max(now, self.at)
        if seen_s < LEAST_S or now - self.at > PAUSE_S:
            return None
        weight_s = WINDOW_S * (1.0 - math.exp(-(now - self.since) / WINDOW_S))
        return self.chunks * self._decay(now) / weight_s

    def _decay(self, now: float) -> float:
        return math.exp(-max(0.0, now - self.at) / WINDOW_S)

    def to_details(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_details(cls, details: Mapping[str, Any] | None) -> Self | None:
        """Read what ``to_details`` gave; None: nothing was embedded yet."""
        return None if details is None else cls(**details)
