"""Hits: the order of the best, whatever comes in."""

from types import SimpleNamespace

import numpy as np
import pytest

from penstock.storage.search import hits
from penstock.storage.search.found import Found


@pytest.fixture
def told(monkeypatch):
    """Show hits as pairs (score, chunk id), and check that each comes with its own text."""

    def shown(segment, rows, *, scores, texts):
        if texts is not None:
            assert texts == [b"text of %d" % segment.chunk_ids[row] for row in rows]
        return list(zip(scores, segment.chunk_ids[rows].tolist(), strict=True))

    monkeypatch.setattr(hits, "_hits", shown)
    return lambda found, *, k: hits.best_hits(found, k=k)


def test_the_best_are_in_the_order_of_scores_and_then_of_chunk_ids(told):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    for _ in range(2_000):
        k, found, every = int(numbers.integers(1, 20)), [], []
        first_id, kinds = 0, int(numbers.choice([3, 10_000]))  # of scores
        for _ in range(int(numbers.choice([1, 1, 2, 4]))):
            size = int(numbers.integers(1, 30))
            scores = -np.sort(-numbers.integers(0, kinds, size)).astype(np.float32)
            rows, chunk_ids = numbers.permutation(size), (first_id + 1 + np.arange(size)).astype(np.uint64)
            texts = tuple(b"text of %d" % chunk_ids[row] for row in rows[: numbers.integers(0, size + 1)])
            found.append((SimpleNamespace(chunk_ids=chunk_ids), Found(rows, scores, "walk", size, texts=texts)))
            every += zip(scores.tolist(), chunk_ids[rows].tolist(), strict=True)
            first_id += size
        wanted = sorted(every, key=lambda hit: (-hit[0], hit[1]))[:k]
        assert told(found, k=k) == wanted


def test_of_nothing_there_is_no_best():
    assert hits.best_hits([], k=3) == []
