"""How long to wait before the next attempt."""

import random
import threading

LONGEST_S = 60.0
_DOUBLINGS_MAX = 30


def full_jitter(
    attempt: int, *, first_s: float, longest_s: float = LONGEST_S, at_least_s: float | None = None
) -> float:
    """Return seconds to wait after failed attempt number ``attempt`` (from 1).

    Uniform between zero and the doubled delay, so that many workers that failed together do not return together
    (Brooker, "Exponential Backoff And Jitter", AWS 2015). ``at_least_s`` is the provider's own wish and is obeyed.
    """
    ceiling = min(longest_s, first_s * 2 ** min(attempt - 1, _DOUBLINGS_MAX))
    return (at_least_s or 0.0) + random.uniform(0.0, ceiling)  # noqa: S311 spreads load, guards nothing


class Outages:
    """How often in a row each model's provider failed in this process: what the delay grows with."""

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._lock = threading.Lock()

    def delay_s(self, model: str, *, first_s: float, wish_s: float | None) -> float:
        """Return how long to wait after one more failure; ``wish_s`` is what the provider asked for."""
        with self._lock:
            self._failures[model] = self._failures.get(model, 0) + 1
            return full_jitter(self._failures[model], first_s=first_s, at_least_s=wish_s)

    def over(self, model: str) -> None:
        with self._lock:
            self._failures.pop(model, None)
