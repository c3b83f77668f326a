"""Hits: the order of the best, whatever comes in."""

import numpy as np

from penstock.storage.search.hits import _best


def test_the_best_are_in_the_order_of_scores_and_then_of_chunk_ids():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    for _ in range(2_000):
        size, k = int(numbers.integers(1, 30)), int(numbers.integers(1, 20))
        scores = numbers.integers(0, int(numbers.choice([3, 10_000])), size).astype(np.float32)
        if numbers.random() < 0.7:
            scores = -np.sort(-scores)
        chunk_ids = numbers.permutation(size).astype(np.uint64)
        wanted = sorted(range(size), key=lambda place: (-scores[place], chunk_ids[place]))[:k]
        assert _best(scores, chunk_ids, k=k).tolist() == wanted
