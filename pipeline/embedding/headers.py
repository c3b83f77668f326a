"""What the headers of an endpoint's answer say: how long to wait, and how much it takes. Reads names and numbers only.

The names are OpenAI's (platform.openai.com, "Rate limits in headers"), which others use, too.
"""

import re
from collections.abc import Mapping

from penstock.storage.rates import Rates, Told

MINUTE_S, HOUR_S, DAY_S = 60.0, 3_600.0, 86_400.0
_UNITS_S = {"d": DAY_S, "h": HOUR_S, "m": MINUTE_S, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait as the endpoint says them; a date instead of seconds counts as nothing said."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        wait_s = _number(headers.get(name, ""))
        if wait_s is not None:
            return wait_s * unit_s
    waits_s = [
        _duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
        for kind in ("requests", "tokens")
        if _number(headers.get(f"x-ratelimit-remaining-{kind}", "")) == 0
    ]
    return max((wait_s for wait_s in waits_s if wait_s is not None), default=None)


def told(headers: Mapping[str, str]) -> Told:
    """Return the limits per minute, and what is left of them; nothing of a kind of which the endpoint is silent."""
    limits: list[float | None] = []
    left: list[float | None] = []
    for kind in ("requests", "tokens"):
        limit = _number(headers.get(f"x-ratelimit-limit-{kind}", ""))
        remaining = _number(headers.get(f"x-ratelimit-remaining-{kind}", ""))
        reset_s = _duration_s(headers.get(f"x-ratelimit-reset-{kind}", ""))
        limits.append(limit * MINUTE_S / _window_s(limit, remaining, reset_s) if limit else None)
        left.append(remaining if limit else None)
    return Told(Rates(*limits), Rates(*left))


def _window_s(limit: float, remaining: float | None, reset_s: float | None) -> float:
    """Return what time a limit is for: no header says it, but what is used up comes back at its pace.

    A minute, unless an hour or a day is much nearer to what the others say.
    """
    if remaining is None or not reset_s or remaining >= limit:
        return MINUTE_S
    whole_s = reset_s * limit / (limit - remaining)
    return next((window_s for window_s in (MINUTE_S, HOUR_S) if whole_s < 8 * window_s), DAY_S)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _duration_s(text: str) -> float | None:
    """Return seconds of what is written like ``6m0s``, ``120ms`` or ``1.5``."""
    parts = _DURATION.findall(text)
    if parts and "".join(amount + unit for amount, unit in parts) == text:
        return sum(float(amount) * _UNITS_S[unit] for amount, unit in parts)
    return _number(text)
