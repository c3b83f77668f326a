"""The compiled kernels: what hnswlib finds, what an exact search finds, and nothing from a rotten file."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np
import pytest
from numpy.typing import NDArray

from penstock.storage import kernels
from penstock.storage.segments.graph_files import open_graph, record_map, upper_places

DIMENSIONS = 24
COUNT = 3_000


@dataclass
class Built:
    """The same saved graph, opened by hnswlib and for the kernels."""

    vectors: NDArray[np.float32]
    peer: hnswlib.Index
    graph: kernels.Graph
    rows: NDArray[np.uint32]
    l2: bool

    def walk(self, query, *, ef):
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        marks = np.zeros(len(self.rows), np.uint16)
        size, visits = kernels.walk(self.graph, query, self.l2, marks, np.uint16(1), best, costs)
        return (self.rows[best[: max(size, 0)]].tolist() if size >= 0 else size), costs[: max(size, 0)], int(visits)

    def walk_accepted(self, query, *, ef, accepted, budget=10**9, share=0.0):
        best, costs = np.empty(ef, np.int64), np.empty(ef, np.float32)
        marks = np.zeros(len(self.rows), np.uint16)
        size, visits = kernels.walk_accepted(
            self.graph, query, self.l2, marks, np.uint16(1), self.rows, accepted, budget, share, best, costs
        )
        return (self.rows[best[: max(size, 0)]].tolist() if size >= 0 else size), costs[: max(size, 0)], int(visits)


def vectors_of(kind: str, count: int, *, seed: int) -> NDArray[np.float32]:
    numbers = np.random.default_rng(seed)
    vectors = numbers.standard_normal((count, DIMENSIONS)).astype(np.float32)
    if kind == "clustered":
        centres = np.random.default_rng(1).standard_normal((20, DIMENSIONS)).astype(np.float32)
        vectors = centres[numbers.integers(0, 20, count)] + vectors * np.float32(0.2)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def frozen(array):
    array.flags.writeable = False
    return array


@pytest.fixture(scope="module", params=[("random", "ip"), ("clustered", "ip"), ("clustered", "l2")])
def built(request, tmp_path_factory) -> Built:
    kind, space = request.param
    vectors = vectors_of(kind, COUNT, seed=2)
    path = tmp_path_factory.mktemp("graph") / "built.hnsw"
    index = hnswlib.Index(space, DIMENSIONS)
    index.init_index(COUNT, M=8, ef_construction=60, random_seed=3)
    index.add_items(vectors, num_threads=2)  # two threads permute the records: a label is not its record
    index.save_index(str(path))
    return opened(path, vectors, space=space)


def opened(path: Path, vectors: NDArray[np.float32], *, space: str) -> Built:
    peer = hnswlib.Index(space, DIMENSIONS)
    peer.load_index(str(path))
    record_bytes = 4 + 4 * 16 + 4 * DIMENSIONS + 8
    rows = frozen(record_map(path, count=len(vectors), record_bytes=record_bytes))
    upper_at = frozen(upper_places(path, count=len(vectors), record_bytes=record_bytes))
    view = open_graph(path, dimensions=DIMENSIONS, record_rows=rows, upper_at=upper_at)
    shape = (view.count, view.stride, view.vector_at, view.max_m0, view.max_m, view.max_level, view.entry_point)
    words = view.words
    graph = (words, view.floats, words.view(np.int8), view.upper, view.upper_at, np.array(shape, np.int64))
    return Built(vectors, peer, graph, view.record_rows, l2=space == "l2")


@pytest.mark.parametrize("ef", [10, 64, 200])
def test_a_walk_finds_what_hnswlib_finds_at_the_same_ef(built, ef):
    built.peer.set_ef(ef)
    kind = "clustered" if built.l2 else "random"
    for query in vectors_of(kind, 50, seed=7):
        labels, distances = built.peer.knn_query(query, k=10)
        rows, costs, _ = built.walk(frozen(query), ef=ef)
        assert rows[:10] == labels[0].tolist()
        np.testing.assert_allclose(costs[:10] + (0 if built.l2 else 1), distances[0], atol=1e-5)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02])
def test_a_filtered_walk_finds_what_hnswlib_finds_with_the_same_filter(built, share):
    accepted = np.random.default_rng(5).random(COUNT) < share
    built.peer.set_ef(40)
    for query in vectors_of("random", 20, seed=8):
        labels, _ = built.peer.knn_query(query, k=10, num_threads=1, filter=lambda row: bool(accepted[row]))
        rows, _, visits = built.walk_accepted(frozen(query), ef=40, accepted=accepted)
        assert rows[:10] == labels[0].tolist()
        assert accepted[rows].all()
        assert 0 < visits <= COUNT


def test_a_walk_that_accepts_everything_equals_one_without_a_filter(built):
    for query in vectors_of("random", 20, seed=9):
        plain, costs, _ = built.walk(frozen(query), ef=50)
        filtered, others, _ = built.walk_accepted(frozen(query), ef=50, accepted=np.ones(COUNT, np.bool_))
        assert plain == filtered
        np.testing.assert_array_equal(costs, others)


def test_a_walk_stops_when_its_budget_of_visits_is_spent(built):
    accepted = np.zeros(COUNT, np.bool_)
    accepted[:3] = True
    query = frozen(built.vectors[100].copy())
    size, _, visits = built.walk_accepted(query, ef=40, accepted=accepted, budget=200)
    assert size == kernels.SPENT
    assert 200 < visits <= 200 + 16


@pytest.mark.parametrize("l2", [False, True])
@pytest.mark.parametrize(("count", "k"), [(1, 5), (7, 7), (500, 10), (500, 1000)])
def test_a_scan_finds_the_exact_nearest(count, k, l2):
    vectors = vectors_of("random", count, seed=4)
    query = vectors_of("random", 1, seed=5)[0]
    chosen = np.flatnonzero(np.arange(count) % 3 != 1)
    best, costs = np.empty(k, np.int64), np.empty(k, np.float32)
    size = kernels.scan(frozen(vectors.reshape(-1)), chosen * DIMENSIONS, frozen(query), l2, best, costs)
    exact = ((vectors - query) ** 2).sum(axis=1) if l2 else -vectors @ query
    expected = chosen[np.argsort(exact[chosen], kind="stable")][:k]
    assert chosen[best[:size]].tolist() == expected.tolist()
    np.testing.assert_allclose(costs[:size], exact[expected], atol=1e-5)


def test_a_scan_prefers_the_first_of_equal_vectors():
    vectors = np.tile(vectors_of("random", 1, seed=4), (50, 1))
    best, costs = np.empty(10, np.int64), np.empty(10, np.float32)
    places = np.arange(50) * DIMENSIONS
    assert kernels.scan(frozen(vectors.reshape(-1)), places, frozen(vectors[0].copy()), False, best, costs) == 10
    assert best.tolist() == list(range(10))


@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("k", [1, 3])
def test_a_vector_that_is_none_ends_a_scan_whatever_is_nearer(at, k):
    vectors = np.ones((7, DIMENSIONS), np.float32) * np.arange(1, 8, dtype=np.float32)[:, None]
    vectors[at, 5] = np.nan
    query, places = frozen(np.ones(DIMENSIONS, np.float32)), np.arange(7) * DIMENSIONS
    best, costs = np.empty(k, np.int64), np.empty(k, np.float32)

    assert kernels.scan(frozen(vectors.reshape(-1)), places, query, False, best, costs) == kernels.BROKEN
    apart = [frozen(vectors[:2].copy()), frozen(vectors[2:].copy())]
    addresses = np.array([part.ctypes.data for part in apart])
    assert kernels.scan_arrays(addresses, np.array([2, 5]), query, False, best, costs) == kernels.BROKEN
    assert best[0] == (0 if at < 2 else 1)


def test_a_walk_that_is_not_where_the_accepted_records_are_is_given_up_early(built):
    query = frozen(vectors_of("random", 1, seed=6)[0])
    costs = -(built.vectors @ query)
    accepted = np.zeros(COUNT, np.bool_)
    accepted[np.argsort(costs)[-COUNT // 10 :]] = True  # the farthest tenth
    found, _, patient = built.walk_accepted(query, ef=20, accepted=accepted, budget=2 * COUNT)
    spent, _, visits = built.walk_accepted(query, ef=20, accepted=accepted, budget=2 * COUNT, share=0.1)
    assert len(found) == 20
    assert spent == kernels.SPENT
    assert visits < patient / 2


def test_links_that_lead_nowhere_end_the_walk_wherever_they_are(built):
    words, _, _, upper, upper_at, shape = built.graph
    seed = np.random.SeedSequence().entropy
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    query = frozen(vectors_of("random", 1, seed=6)[0])
    broken = 0
    for _ in range(300):
        rotten, rotten_upper = words.copy(), upper.copy()
        records = rotten.reshape(COUNT, -1)
        records[numbers.integers(0, COUNT, 50), numbers.integers(0, 17, 50)] = numbers.integers(0, 2**32, 50)
        rotten_upper[numbers.integers(0, len(upper), 20)] = numbers.integers(0, 2**32, 20)
        for array in (rotten, rotten_upper):
            array.flags.writeable = False
        damaged = Built(
            built.vectors,
            built.peer,
            (rotten, rotten.view(np.float32), rotten.view(np.int8), rotten_upper, upper_at, shape),
            built.rows,
            False,
        )
        size, _, _ = damaged.walk_accepted(query, ef=200, accepted=np.ones(COUNT, np.bool_))
        broken += size == kernels.BROKEN
    assert broken > 0


def test_not_a_number_ends_a_walk_and_is_told(built):
    words, _, _, upper, upper_at, shape = built.graph
    rotten = words.copy()
    rotten.reshape(COUNT, -1)[:, 20] = 0x7FC00000
    rotten.flags.writeable = False
    graph = (rotten, rotten.view(np.float32), rotten.view(np.int8), upper, upper_at, shape)
    damaged = Built(built.vectors, built.peer, graph, built.rows, built.l2)
    query = frozen(built.vectors[0].copy())
    size, _, visits = damaged.walk(query, ef=20)
    assert (size, visits <= COUNT) == (kernels.BROKEN, True)
    size, _, _ = damaged.walk_accepted(query, ef=20, accepted=np.ones(COUNT, np.bool_))
    assert size == kernels.BROKEN


def test_warming_compiles_all_that_mapped_segments_need(built):
    kernels.warm()
    searching = (kernels.scan, kernels.scan_arrays, kernels.walk, kernels.walk_accepted, kernels.walk_and_read)
    compiled = [len(kernel.signatures) for kernel in searching]
    built.walk(frozen(built.vectors[0].copy()), ef=10)
    built.walk_accepted(frozen(built.vectors[0].copy()), ef=10, accepted=np.ones(COUNT, np.bool_))
    assert [len(kernel.signatures) for kernel in searching] == compiled


def test_kernels_release_the_gil():
    for kernel in (kernels.scan, kernels.scan_arrays, kernels.walk, kernels.walk_accepted, kernels.walk_and_read):
        assert kernel.targetoptions["nogil"]


SCAN = """
import numpy as np
from penstock.storage import kernels
floats = np.ones(4, np.float32)
assert kernels.scan(floats, np.zeros(1, np.int64), floats, False, np.empty(1, np.int64), np.empty(1, np.float32)) == 1
"""


def test_compiled_code_goes_where_numba_cache_dir_says(tmp_path):
    environment = {"NUMBA_CACHE_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-c", SCAN], check=True, env=environment, timeout=120)
    assert list(tmp_path.rglob("*.nbc"))


def test_kernels_are_compiled_at_each_start_where_nothing_can_be_kept(monkeypatch):
    def njit(function, *, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return function

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.compiled()(abs)(-3) == 3


def test_a_record_whose_row_or_document_rotted_is_never_looked_up(built):
    query = frozen(vectors_of("random", 1, seed=6)[0])
    rotten = built.rows.copy()
    rotten[:] = COUNT + 7
    damaged = Built(built.vectors, built.peer, built.graph, frozen(rotten), built.l2)
    assert damaged.walk_accepted(query, ef=20, accepted=np.ones(COUNT, np.bool_))[0] == kernels.BROKEN
    owners = frozen(np.array([0, 9], np.uint32))
    assert kernels.spread(np.ones(2, np.bool_), owners, np.empty(2, np.bool_)) is False


def test_marked_places_are_listed_all_or_each_so_many():
    seed = int(np.random.SeedSequence().entropy % 2**32)
    print("seed", seed)
    numbers = np.random.default_rng(seed)
    for length in (0, 1, 63, 64, 65, 1_000):
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = numbers.random(length) < share
            told, room = np.flatnonzero(mask), np.full(length + 1, -1)
            first, end = sorted(numbers.integers(0, length + 1, 2).tolist())
            size = kernels.list_set(mask, first, end, room)
            assert room[:size].tolist() == told[(told >= first) & (told < end)].tolist()
            for step in (1, 2, 7, 100):
                size = kernels.list_each(mask, step, room)
                assert room[:size].tolist() == told[::step].tolist()
                size = kernels.list_each(mask, step, room[:3])
                assert room[:size].tolist() == told[::step][:3].tolist()


def test_spans_that_are_in_memory_are_read_without_letting_go_of_the_interpreter_as_others_are(tmp_path):
    if not hasattr(os, "RWF_NOWAIT"):
        pytest.skip("Linux only")
    data = bytes(range(256)) * 40
    (tmp_path / "payload").write_bytes(data)
    offsets, sizes = np.array([7, 0, 9_000, 100]), np.array([3, 0, 1_240, 50])
    room, other, place = np.zeros(1_293, np.uint8), np.zeros(1_293, np.uint8), np.empty(2, np.uint64)
    descriptor = os.open(tmp_path / "payload", os.O_RDONLY)
    try:
        assert kernels.read_spans(descriptor, offsets, sizes, room) == 0
        assert room.tobytes() == data[7:10] + data[9_000:10_240] + data[100:150]
        assert kernels.read_cached_spans(descriptor, offsets, sizes, other, os.RWF_NOWAIT, place) in {0, kernels.BROKEN}
        assert kernels.read_cached_spans(descriptor, offsets, sizes, other, 0, place) == 0
        assert other.tobytes() == room.tobytes()
        for bad in ([10_239, 2], [-1, 2], [0, -1], [0, 2_000]):
            outside = np.array([bad[0]]), np.array([bad[1]])
            assert kernels.read_cached_spans(descriptor, *outside, other, 0, place) == kernels.BROKEN
            assert kernels.read_spans(descriptor, *outside, other) == kernels.BROKEN
    finally:
        os.close(descriptor)
