"""Items of different length in one array."""

import random

import numpy as np

from penstock.storage.segments.ragged import joined_ranges


def test_ranges_follow_each_other_empty_ones_and_none_at_all_included():
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for count in (0, 1, 2, 50):
        starts = rng.integers(0, 1_000, count)
        ends = starts + rng.integers(0, 4, count)
        expected = [at for start, end in zip(starts, ends, strict=True) for at in range(start, end)]
        assert joined_ranges(starts, ends).tolist() == expected
