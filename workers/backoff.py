"""How long to wait before the next attempt."""

import random

LONGEST_S = 60.0
_DOUBLINGS_MAX = 30


def full_jitter(attempt: int, *, first_s: float, longest_s: float = LONGEST_S, at_least_s: float | None = None) -> float:
    """Return seconds to wait after failed attempt number ``attempt`` (from 1).

    Uniform between zero and the doubled delay, so that many workers that failed together do not return together
    (Brooker, "Exponential Backoff And Jitter", AWS 2015). ``at_least_s`` is the provider's own wish and is obeyed.
    """
    ceiling = min(longest_s, first_s * 2 ** min(attempt - 1, _DOUBLINGS_MAX))
    return (at_least_s or 0.0) + random.uniform(0.0, ceiling)  # noqa: S311 spreads load, guards nothing
