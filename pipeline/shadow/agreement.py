"""How much two lists of hits agree, and how good one is by judgements. Pure arithmetic over whatever names a hit."""

import math
from collections.abc import Hashable, Mapping, Sequence

PERSISTENCE = 0.9  # the first ten places carry 86 % of what counts


def overlap(old: Sequence[Hashable], new: Sequence[Hashable], *, k: int) -> float:
    """Return the share of the first ``k`` of either list that is among the first ``k`` of the other, 0 to 1.

    Of the longer one where they are shorter than ``k``: hits that only one has count against them. Two empty lists
    agree. No name is in a list twice.
    """
    first, second = set(old[:k]), set(new[:k])
    most = max(len(first), len(second))
    return len(first & second) / most if most else 1.0


def rank_agreement(old: Sequence[tuple[Hashable, float]], new: Sequence[tuple[Hashable, float]], *, k: int) -> float:
    """Return the rank-biased overlap of the first ``k`` of two lists of names with scores, best first: 0 to 1.

    It compares lists that have not the same members, and the first places weigh most (Webber, Moffat and Zobel 2010, "A
    similarity measure for indefinite rankings", extrapolated, equation 32). Hits of one score share the place of the
    first of them (their section 4.3), so that the order among equals counts for nothing. Two empty lists agree.
    """
    first, second = _places(old[:k]), _places(new[:k])
    depth = max(len(first), len(second))
    if not depth:
        return 1.0
    total = 0.0
    for place in range(1, depth + 1):
        above = {name for name, at in first.items() if at <= place}
        others = {name for name, at in second.items() if at <= place}
        agreement = 2 * len(above & others) / (len(above) + len(others))
        total += agreement * PERSISTENCE ** (place - 1) * (1 - PERSISTENCE)
    return total + agreement * PERSISTENCE**depth


def _places(ranked: Sequence[tuple[Hashable, float]]) -> dict[Hashable, int]:
    """Return each name's place from 1; hits of one score have the place of the first of them."""
    places: dict[Hashable, int] = {}
    place, last = 0, math.nan
    for number, (name, score) in enumerate(ranked, start=1):
        if score != last:
            place, last = number, score
        places[name] = place
    return places


def gain_quality(ranked: Sequence[Hashable], grades: Mapping[Hashable, int], *, k: int) -> float | None:
    """Return nDCG of the first ``k``: gains of 2^grade - 1, discounted by log2(place + 1) (Burges et al. 2005).

    What has no grade gains nothing. None, when no grade is above 0: then no order is better than another.
    """
    ideal = _gain(sorted(grades.values(), reverse=True)[:k])
    return _gain([grades.get(name, 0) for name in ranked[:k]]) / ideal if ideal else None


def _gain(grades: Sequence[int]) -> float:
    return sum((2.0**grade - 1.0) / math.log2(place + 1) for place, grade in enumerate(grades, start=1))


def mean(values: Sequence[float]) -> float:
    """Return the mean; of nothing, not a number."""
    return math.fsum(values) / len(values) if values else math.nan


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that ``share`` of them do not exceed (nearest rank); of nothing, not a number."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
