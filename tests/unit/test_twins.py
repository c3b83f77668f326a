"""Rows with the same vector: however many there are, each vector is found, and no search is caught among them."""

from pathlib import Path

import hnswlib
import numpy as np
import pytest

from penstock.storage import kernels
from penstock.storage.publishing.graphs import build_graph
from penstock.storage.publishing.repairing import repair
from penstock.storage.publishing.twins import first_rows, with_twins
from penstock.storage.segments.graph_files import GraphView, check_links, open_built

from ..storage_samples import unit_vectors

DIMENSIONS = 32
EF, K = 64, 10


def build(path: Path, vectors: np.ndarray, *, metric: str, base: Path | None = None, base_count: int = 0) -> int:
    return build_graph(
        path,
        vectors=np.array_split(vectors[base_count:], 3),
        first=first_rows(np.array_split(vectors, 5), count=len(vectors)),
        dimensions=DIMENSIONS,
        metric=metric,
        threads=2,
        base=base,
        base_count=base_count,
    )


def watched(view: GraphView, vectors: np.ndarray) -> list[int]:
    return view.row_records[with_twins(first_rows([vectors], count=len(vectors)))].tolist()


def repeated(numbers: np.random.Generator, *, kinds: int, most: int, seed: int) -> np.ndarray:
    """Each of some vectors between once and ``most`` times, in any order."""
    vectors = unit_vectors(kinds, dimensions=DIMENSIONS, seed=seed)
    return numbers.permutation(np.repeat(vectors, numbers.integers(1, most, kinds), axis=0))


def lost(view: GraphView, vectors: np.ndarray, *, l2: bool, twice: bool = False) -> int:
    """Return of how many vectors a search does not find all that have it, or as many as are asked for.

    ``twice``: look only for vectors that several rows have.
    """
    marks, count = np.zeros(view.count, np.uint16), 0
    kinds, times = np.unique(vectors, axis=0, return_counts=True)
    if twice:
        kinds, times = kinds[times > 1], times[times > 1]
    for epoch, (query, here) in enumerate(zip(kinds, times, strict=True), start=1):
        best, costs = np.empty(EF, np.int64), np.empty(EF, np.float32)
        query.flags.writeable = False
        size, _ = kernels.walk(view.graph, query, l2, marks, np.uint16(epoch), best, costs)
        rows = view.record_rows[best[: min(K, size)]]
        count += int((vectors[rows] == query).all(axis=1).sum()) < min(K, here)
    return count


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_of_vectors_that_very_many_rows_have_each_is_found(tmp_path, metric):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    vectors = repeated(np.random.default_rng(seed), kinds=60, most=400, seed=seed)
    inserted = build(tmp_path / "g", vectors, metric=metric)
    view = open_built(tmp_path / "g", dimensions=DIMENSIONS)
    check_links(view, source="g")
    repaired = repair(tmp_path / "g", view, l2=metric == "l2", watched=watched(view, vectors))

    assert inserted == 60
    assert (view.vectors[view.row_records] == vectors).all()
    assert (repaired.unreachable, repaired.missed) == (0, 0)
    assert lost(view, vectors, l2=metric == "l2") == 0


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_a_graph_with_twins_is_extended_with_more_of_them(tmp_path, metric):
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    old = repeated(numbers, kinds=50, most=200, seed=seed)
    fresh = unit_vectors(3_000, dimensions=DIMENSIONS, seed=seed + 1)
    added = np.concatenate([old[numbers.integers(0, len(old), 2_000)], fresh, np.repeat(fresh[:20], 50, axis=0)])
    vectors = np.concatenate([old, numbers.permutation(added)])
    build(tmp_path / "old", old, metric=metric)
    inserted = build(tmp_path / "new", vectors, metric=metric, base=tmp_path / "old", base_count=len(old))
    view = open_built(tmp_path / "new", dimensions=DIMENSIONS)
    check_links(view, source="new")
    repair(tmp_path / "new", view, l2=metric == "l2", watched=watched(view, vectors))

    assert inserted == len(fresh)
    assert (view.vectors[view.row_records] == vectors).all()
    assert lost(view, vectors, l2=metric == "l2") <= 0.005 * 3_050  # what is promised of any graph
    assert lost(view, vectors, l2=metric == "l2", twice=True) == 0

    theirs = hnswlib.Index("l2" if metric == "l2" else "ip", DIMENSIONS)
    theirs.load_index(str(tmp_path / "new"))
    theirs.set_ef(EF)
    labels, _ = theirs.knn_query(old[:100], 1)
    assert (vectors[labels[:, 0]] == old[:100]).all(axis=1).mean() >= 0.99


def test_the_first_row_with_a_vector_stands_for_all():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    for count in (1, 2, 50, 300):
        vectors = unit_vectors(count, dimensions=8, seed=seed)[numbers.integers(0, count, count)]
        seen: dict[bytes, int] = {}
        wanted = [seen.setdefault(vector.tobytes(), row) for row, vector in enumerate(vectors)]
        assert first_rows(np.array_split(vectors, 7), count=count).tolist() == wanted


def test_a_graph_into_which_twins_were_inserted_is_extended_as_it_is(tmp_path):
    old = np.repeat(unit_vectors(30, dimensions=DIMENSIONS), 3, axis=0)
    options = {"dimensions": DIMENSIONS, "metric": "cosine", "threads": 1}
    build_graph(tmp_path / "old", vectors=[old], first=np.arange(90), **options)
    vectors = np.concatenate([old, old[:10], unit_vectors(40, dimensions=DIMENSIONS, seed=7)])
    inserted = build(tmp_path / "new", vectors, metric="cosine", base=tmp_path / "old", base_count=90)
    view = open_built(tmp_path / "new", dimensions=DIMENSIONS)
    check_links(view, source="new")

    assert inserted == 40
    assert (view.vectors[view.row_records] == vectors).all()
    assert lost(view, vectors, l2=False) == 0
