"""Agreement of two lists of hits, against definitions written out plainly."""

import math
import random

import pytest

from penstock.pipeline.shadow.agreement import (
    PERSISTENCE,
    gain_quality,
    mean,
    overlap,
    percentile,
    rank_agreement,
)

K = 10


def ranked(names: str) -> list[tuple[str, float]]:
    """One hit per letter, each with a lower score than the one before."""
    return [(name, 1.0 - place / 100) for place, name in enumerate(names)]


def plain_agreement(old: list[tuple[str, float]], new: list[tuple[str, float]]) -> float:
    """The sum of the paper, depth by depth, over sets that are made anew at each depth."""

    def above(hits: list[tuple[str, float]], depth: int) -> set[str]:
        return {name for name, score in hits if sum(other > score for _, other in hits) + 1 <= depth}

    depth = max(len(old), len(new))
    shares = [
        2 * len(above(old, at) & above(new, at)) / (len(above(old, at)) + len(above(new, at)))
        for at in range(1, depth + 1)
    ]
    return (1 - PERSISTENCE) * sum(
        share * PERSISTENCE**at for at, share in enumerate(shares)
    ) + PERSISTENCE**depth * shares[-1]


def drawn(rng: random.Random) -> list[tuple[str, float]]:
    """Up to ten hits among fifteen names, many of them with equal scores."""
    names = rng.sample("abcdefghijklmno", rng.randint(0, K))
    return list(zip(names, sorted((rng.randint(0, 5) / 5 for _ in names), reverse=True), strict=True))


def test_agreement_is_that_of_the_paper_for_lists_of_all_lengths_with_ties():
    rng = random.Random(20)
    for _ in range(300):
        old, new = drawn(rng), drawn(rng)
        if old or new:
            assert rank_agreement(old, new, k=K) == pytest.approx(plain_agreement(old, new))
        assert rank_agreement(old, new, k=K) == pytest.approx(rank_agreement(new, old, k=K))
        assert -1e-9 <= rank_agreement(old, new, k=K) <= 1 + 1e-9


def test_agreement_of_the_same_of_nothing_and_of_strangers():
    assert rank_agreement(ranked("abc"), ranked("abc"), k=K) == pytest.approx(1.0)
    assert rank_agreement([], [], k=K) == 1.0
    assert rank_agreement(ranked("abc"), ranked("def"), k=K) == 0.0
    assert rank_agreement(ranked("abc"), [], k=K) == 0.0


def test_the_first_places_weigh_most_and_the_order_among_equals_nothing():
    whole = ranked("abcdefghij")
    assert rank_agreement(whole, ranked("abcdefghji"), k=K) > rank_agreement(whole, ranked("bacdefghij"), k=K)
    assert rank_agreement([("a", 1.0), ("b", 1.0)], [("b", 1.0), ("a", 1.0)], k=K) == pytest.approx(1.0)
    assert rank_agreement([("a", 1.0), ("b", 0.9)], [("b", 1.0), ("a", 0.9)], k=K) < 0.95


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("abcdefghij", "jihgfedcba", 1.0),
        ("abcdefghijXYZ", "abcdefghijUVW", 1.0),  # only the first ten count
        ("abcd", "abxy", 0.5),
        ("ab", "abcd", 0.5),  # what only one finds counts against them
        ("", "ab", 0.0),
        ("", "", 1.0),
    ],
)
def test_overlap(old, new, expected):
    assert overlap(old, new, k=K) == overlap(new, old, k=K) == expected


def test_quality_by_judgements_is_dcg_over_that_of_the_best_order():
    grades = {"a": 3, "b": 1, "c": 0}
    dcg = (2**1 - 1) / math.log2(2) + 0.0 + (2**3 - 1) / math.log2(4)
    ideal = (2**3 - 1) / math.log2(2) + (2**1 - 1) / math.log2(3)
    assert gain_quality(["b", "unjudged", "a"], grades, k=K) == pytest.approx(dcg / ideal)
    assert gain_quality(["a", "b"], grades, k=K) == pytest.approx(1.0)
    assert gain_quality([], grades, k=K) == 0.0
    assert gain_quality(["x"] * 10 + ["a"], grades, k=K) == 0.0  # behind the tenth place
    assert gain_quality(["a"], {"a": 0}, k=K) is None


def test_the_best_order_of_more_judged_documents_than_places_reaches_one():
    grades = {str(number): 1 for number in range(30)}
    assert gain_quality([str(number) for number in range(10)], grades, k=K) == pytest.approx(1.0)


def test_percentiles_are_values_that_were_there():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0, 2.0], 0.1) == 1.0
    assert percentile([1.0, 2.0], 0.95) == 2.0
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(mean([]))
