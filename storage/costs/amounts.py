"""What calls took and what the cache saved, as numbers that can be added and shared. Knows no table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

N = TypeVar("N", bound=str)
HOUR_S = 3_600


@dataclass(frozen=True, slots=True)
class Amounts:
    """``calls`` of a provider, for ``tokens`` together; ``failed_calls`` of them brought nothing and may be paid for.

    ``cost_usd``: of the tokens with a known price; ``unpriced_tokens``: the others. Likewise what the cache saved.
    """

    calls: int = 0
    failed_calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0
    unpriced_tokens: int = 0
    cache_hits: int = 0
    saved_tokens: int = 0
    saved_usd: float = 0.0
    unpriced_saved_tokens: int = 0

    def __add__(self, other: "Amounts") -> "Amounts":
        return Amounts(*(getattr(self, name) + getattr(other, name) for name in NAMES))

    def __bool__(self) -> bool:
        return any(getattr(self, name) for name in NAMES)

    @classmethod
    def of_call(cls, tokens: int, price: float | None, *, answered: bool = True) -> "Amounts":
        """Return what one call took. ``price``: of a million tokens; None: nobody knows it."""
        return cls(
            calls=1,
            failed_calls=0 if answered else 1,
            tokens=tokens,
            cost_usd=cost_of(tokens, price) or 0.0,
            unpriced_tokens=tokens if price is None else 0,
        )

    @classmethod
    def of_hits(cls, hits: int, tokens: int, price: float | None) -> "Amounts":
        """Return what the cache saved with so many texts of so many tokens together."""
        return cls(
            cache_hits=hits,
            saved_tokens=tokens,
            saved_usd=cost_of(tokens, price) or 0.0,
            unpriced_saved_tokens=tokens if price is None else 0,
        )

    def shared(self, weights: Mapping[N, int]) -> Iterator[tuple[N, "Amounts"]]:
        """Yield the share of each name by its weight, in order; they add up to all. Of no names there are no shares.

        Whole numbers stay whole: a call of two jobs is one of the first or of the second.
        """
        total = sum(weights.values())
        even = dict.fromkeys(weights, 1)
        of_total = (dict(weights), total) if total else (even, len(even))
        past = 0
        for name in sorted(weights):
            before, past = past, past + of_total[0][name]
            yield name, self._part(before, past, of_total[1])

    def _part(self, before: int, past: int, total: int) -> "Amounts":
        values: dict[str, Any] = {}
        for name in NAMES:
            whole = getattr(self, name)
            if isinstance(whole, float):
                values[name] = whole * (past - before) / total
            else:
                values[name] = whole * past // total - whole * before // total
        return Amounts(**values)


NAMES = tuple(field.name for field in fields(Amounts))


def cost_of(tokens: int, price: float | None) -> float | None:
    """Return US dollars for ``tokens`` at ``price`` for a million; None when the price is not known."""
    return None if price is None else tokens * price / 1e6


def hour_of(at: float) -> int:
    """Return the hours from 1970 to ``at``, in UTC."""
    return int(at // HOUR_S)
