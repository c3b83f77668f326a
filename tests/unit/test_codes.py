"""1-bit codes: the nearest rows are among few candidates, whatever rows are looked at, metric or dimension."""

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.segments.codes import CodedRows, encode_rows, rotated_rows, words_of

COUNT = 20_000


def passages(count: int, *, dimensions: int, seed: int) -> np.ndarray:
    """Vectors in clusters of different size and length, as embeddings are."""
    numbers = np.random.default_rng(seed)
    centres = np.random.default_rng(1).standard_normal((200, dimensions))
    made = centres[numbers.integers(0, 200, count)] + 0.9 * numbers.standard_normal((count, dimensions))
    return (made / np.linalg.norm(made, axis=1, keepdims=True) * numbers.uniform(0.5, 2, (count, 1))).astype("<f4")


def costs_of(query: np.ndarray, vectors: np.ndarray, *, l2: bool) -> np.ndarray:
    return ((vectors - query) ** 2).sum(axis=1) if l2 else -(vectors @ query)


@pytest.mark.parametrize("dimensions", [256, 300, 384, 1_000])
@pytest.mark.parametrize("l2", [False, True])
def test_the_nearest_are_among_the_candidates(dimensions, l2):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    vectors = passages(COUNT, dimensions=dimensions, seed=seed)
    codes = encode_rows([vectors[:9_000], vectors[9_000:]], count=COUNT, centre=vectors.mean(axis=0), l2=l2)
    for looked_at in (1.0, 0.5, 0.05):
        rows = np.flatnonzero(np.random.default_rng(seed).random(COUNT) < looked_at)
        found = []
        for query in passages(30, dimensions=dimensions, seed=seed + 1):
            nearest = rows[np.argsort(costs_of(query, vectors[rows], l2=l2))[:10]]
            candidates = codes.candidates(query, rows, count=200, l2=l2)
            assert len(set(candidates.tolist())) == 200
            assert np.isin(candidates, rows).all()
            mask = np.zeros(COUNT, np.bool_)
            mask[rows] = True
            marked = codes.candidates_marked(query, mask, marked=len(rows), count=200, l2=l2)
            assert sorted(marked.tolist()) == sorted(candidates.tolist())
            found.append(np.isin(nearest, candidates).mean())
        assert np.mean(found) > 0.97


def test_few_rows_are_all_candidates():
    vectors = passages(50, dimensions=64, seed=3)
    codes = encode_rows([vectors], count=50, centre=vectors.mean(axis=0), l2=False)
    assert codes.candidates(vectors[0], np.array([3, 4, 9]), count=200, l2=False).tolist() == [3, 4, 9]


def test_a_rotation_keeps_lengths_and_angles():
    vectors = passages(40, dimensions=300, seed=4)
    turned = rotated_rows(vectors)
    assert turned.shape == (40, 320)
    np.testing.assert_allclose(turned @ turned.T, vectors @ vectors.T, rtol=1e-4, atol=1e-4)
    assert words_of(300) == (3, 2)


def test_a_row_at_the_centre_and_equal_rows_are_estimated_like_others():
    vectors = np.ones((300, 64), "<f4")
    codes = encode_rows([vectors], count=300, centre=vectors[0], l2=False)
    assert len(codes.candidates(vectors[0], np.arange(300), count=10, l2=False)) == 10


def test_codes_of_another_size_are_damaged():
    vectors = passages(50, dimensions=384, seed=3)
    arrays = encode_rows([vectors], count=50, centre=vectors.mean(axis=0), l2=False).to_arrays()
    assert CodedRows.from_arrays(arrays, count=50, dimensions=384).heads.shape == (50, 4)
    for count, dimensions in ((49, 384), (50, 256)):
        with pytest.raises(Damaged, match="code"):
            CodedRows.from_arrays(arrays, count=count, dimensions=dimensions)
    with pytest.raises(Damaged, match="codes_centre"):
        CodedRows.from_arrays({**arrays, "codes_centre": arrays["codes_centre"][:9]}, count=50, dimensions=384)
