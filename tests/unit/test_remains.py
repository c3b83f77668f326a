"""What is left of a damaged segment: every row that can be trusted, and never a vector that cannot."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from penstock.storage.inspection.checksums import CheckedFiles
from penstock.storage.inspection.remains import Remains, read_remains
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.segments.blocks import BLOCK_BYTES
from penstock.storage.segments.graph_files import HEADER_BYTES, graph_shape
from penstock.storage.segments.manifests import SegmentEntry
from penstock.storage.segments.sections import open_sections
from penstock.storage.segments.segment import open_segment, write_segment
from penstock.storage.segments.tombstones import read_deletes

from ..storage_samples import GENERATION, TENANT, Store, current_manifest, many_rows, new_store, unit_vectors

ROWS, DIMENSIONS = 400, 256  # about three blocks of vectors, four with the links


FLAT = pytest.mark.parametrize("store", ["flat"], indirect=True)
GRAPHS = pytest.mark.parametrize("store", ["graph", "graph with int8 records"], indirect=True)


@pytest.fixture(params=["flat", "graph", "graph with int8 records"])
def store(request, tmp_path) -> Store:
    """One segment with tombstones, whose file a test may write over."""
    quantization = "int8" if "int8" in request.param else "none"
    store = new_store(tmp_path, dimensions=DIMENSIONS, quantization=quantization)
    store.publish(additions=many_rows(ROWS), vectors=unit_vectors(ROWS, dimensions=DIMENSIONS))
    if request.param != "flat":
        manifest = current_manifest(store.catalog, store.objects)
        output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50)
        store.publish(swap=Swap([manifest.segments[0].id], output))
    store.publish(removed_document_ids=["d1", "d20"])
    return store


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


class Damaging:
    """The only segment of a store, what it held, and its files to be written over."""

    def __init__(self, store: Store) -> None:
        self.objects = store.objects
        self.entry: SegmentEntry = current_manifest(store.catalog, store.objects).segments[0]
        opened = open_segment(self.objects, self.entry, dimensions=DIMENSIONS)
        self.live = np.setdiff1d(np.arange(ROWS), read_deletes(self.objects, self.entry))
        vectors, chunk_ids = opened.row_vectors(np.arange(ROWS)), opened.chunk_ids.tolist()
        self.held = {chunk_ids[row]: (opened.rows.text(row), vectors[row].tobytes()) for row in self.live.tolist()}
        self.paths = [self.objects.local_path(file.name) for file in self.entry.files]
        self._whole = [path.read_bytes() for path in self.paths]

    @property
    def vector_file(self) -> Path:
        return self.paths[-1]

    def change(self, which: int, change: Callable[[bytearray], bytearray]) -> None:
        path = self.paths[which]
        path.unlink()
        path.write_bytes(change(bytearray(self._whole[which])))

    def flip(self, which: int, at: int) -> None:
        def flipped(data: bytearray) -> bytearray:
            data[at] ^= 1 << at % 8
            return data

        self.change(which, flipped)

    def place_of(self, section: str) -> int:
        return open_sections(self.paths[0], kind="segment").places[section]

    def remains(self) -> Remains | None:
        """What is left, after a check that none of it is wrong."""
        checked = CheckedFiles(self.objects, on_bytes=lambda _: None)
        left = read_remains(self.objects, checked, self.entry, dimensions=DIMENSIONS)
        if left is not None:
            assert (np.diff(left.chunk_ids.astype(np.int64)) > 0).all()
            for row, chunk_id in enumerate(left.chunk_ids.tolist()):
                assert self.held[chunk_id] == (left.rows.text(row), left.vectors[row].tobytes())
            assert left.whole == (len(left.chunk_ids) == len(self.live))
        return left


@pytest.fixture
def damaging(store) -> Damaging:
    return Damaging(store)


@GRAPHS
def test_wherever_a_bit_flips_in_a_graph_the_rows_in_other_blocks_are_left(damaging, rng):
    """In a link, a vector, a label, the header or an upper level: a flipped bit costs the rows of one block."""
    _, record_bytes = graph_shape(damaging.vector_file)
    per_block = BLOCK_BYTES // record_bytes + 2
    size_bytes = damaging.vector_file.stat().st_size
    links, vector, label = HEADER_BYTES + 200 * record_bytes, -8 - 4 * DIMENSIONS, -8
    chosen = [links, links + record_bytes + vector, links + record_bytes + label, size_bytes - 1]
    for at in [*chosen, *(rng.randrange(HEADER_BYTES, size_bytes) for _ in range(30))]:
        damaging.flip(1, at)
        left = damaging.remains()
        assert left is not None, at
        level0 = at < HEADER_BYTES + ROWS * record_bytes
        assert len(left.chunk_ids) >= len(damaging.live) - per_block
        assert not left.whole or not level0


@GRAPHS
def test_a_header_that_was_overwritten_costs_its_block_or_everything_and_nothing_wrong_is_read(damaging, rng):
    some = 0
    for at in range(HEADER_BYTES):
        damaging.flip(1, at)
        some += damaging.remains() is not None
    assert some > 0
    for _ in range(50):
        noise = rng.randbytes(HEADER_BYTES)
        damaging.change(1, lambda data, noise=noise: bytearray(noise) + data[HEADER_BYTES:])
        damaging.remains()


def test_the_rows_before_a_torn_end_are_left(damaging, rng):
    size_bytes = damaging.vector_file.stat().st_size
    for end in [0, 1, HEADER_BYTES, BLOCK_BYTES, *(rng.randrange(size_bytes) for _ in range(20))]:
        damaging.change(-1, lambda data, end=end: data[:end])
        left = damaging.remains()
        if damaging.entry.kind == "flat":
            assert left is None, "the sections of a torn file are nowhere"
        elif end > 2 * BLOCK_BYTES:
            assert left is not None


@FLAT
def test_a_flat_segment_loses_the_rows_of_a_damaged_block_only(damaging):
    damaging.flip(0, damaging.place_of("vectors") + BLOCK_BYTES + 7)
    left = damaging.remains()
    assert left is not None
    per_block = BLOCK_BYTES // (4 * DIMENSIONS)
    assert len(damaging.live) - per_block <= len(left.chunk_ids) < len(damaging.live)


@pytest.mark.parametrize(
    ("store", "section"),
    [
        ("flat", "document_keys"),
        ("graph", "code_heads"),
        ("graph", "code_tails"),
        ("graph", "graph_blocks"),
        ("graph with int8 records", "int8_records"),
    ],
    indirect=["store"],
)
def test_where_only_what_is_computed_is_damaged_every_row_is_left(damaging, section):
    damaging.flip(0, damaging.place_of(section) + 5)
    left = damaging.remains()
    assert left is not None
    assert left.whole


@pytest.mark.parametrize("section", ["text_bytes", "chunk_id", "document", "ordinal", "document_bytes"])
def test_where_rows_themselves_are_damaged_nothing_is_left(damaging, section):
    damaging.flip(0, damaging.place_of(section) + 5)
    assert damaging.remains() is None


@GRAPHS
def test_a_graph_is_not_trusted_without_the_checksums_of_its_blocks(damaging):
    damaging.flip(0, damaging.place_of("graph_blocks") + 5)
    damaging.flip(1, HEADER_BYTES + 1)
    assert damaging.remains() is None


def test_rows_beside_other_segments_are_apart_where_those_lie_between(damaging):
    left = damaging.remains()
    assert left is not None
    ids = left.chunk_ids.tolist()

    def between(first: int, last: int) -> SegmentEntry:
        return SegmentEntry("seg_x", "flat", last - first + 1, first, last, files=[])

    parts = list(left.beside([between(ids[10], ids[19]), between(ids[-5], ids[-1] + 9)]))
    assert [part.chunk_ids.tolist() for part in parts] == [ids[:10], ids[20:-5]]
    assert [part.rows.text(0) for part in parts] == [left.rows.text(0), left.rows.text(20)]
    assert (parts[1].vectors == left.vectors[20:-5]).all()
    assert list(left.beside([between(1, 10_000)])) == []


def whole_file(
    folder: Path, entry: SegmentEntry, *, rows: int = ROWS, first: int | None = None, last: int = 0, **owner: str
) -> bytes:
    """Return the whole file of a flat segment that is like ``entry`` but for its rows and what is given."""
    chunk_ids = np.arange(rows, dtype="<u8") + np.uint64(first or entry.first_chunk_id)
    chunk_ids[-1] = last or chunk_ids[-1]
    given = {"tenant": TENANT, "generation_id": GENERATION, "segment_id": entry.id, **owner}
    content, vectors = many_rows(rows, prefix="x"), unit_vectors(rows, dimensions=DIMENSIONS, seed=1)
    elsewhere = LocalObjects(folder / "elsewhere")
    written = write_segment(elsewhere, rows=content, chunk_ids=chunk_ids, vectors=vectors, **given)
    return elsewhere.get(written.files[0].name)


@pytest.mark.parametrize(
    "other",
    [
        {"segment_id": "seg_other"},
        {"generation_id": "gen_2"},
        {"tenant": "other"},
        {"rows": 5},
        {"rows": 5, "last": ROWS},
        {"rows": ROWS + 100},
        {"rows": ROWS + 100, "last": ROWS},
        {"first": ROWS + 1},
        {"first": 2, "last": ROWS},
        {"last": ROWS + 1},
    ],
    ids=str,
)
def test_of_a_whole_file_that_is_not_of_the_segment_nothing_is_left(damaging, tmp_path, other):
    """After a restore that mixed files up: another segment's, generation's or tenant's, longer, shorter or as long."""
    data = whole_file(tmp_path, damaging.entry, **other)
    damaging.change(0, lambda _: bytearray(data))
    assert damaging.remains() is None


@GRAPHS
def test_of_a_graph_whose_vectors_are_those_of_another_nothing_is_left(store, damaging):
    """The segment is intact, and the graph file a whole one of as many rows."""
    manifest = current_manifest(store.catalog, store.objects)
    store.publish(additions=many_rows(ROWS, prefix="y"), vectors=unit_vectors(ROWS, dimensions=DIMENSIONS, seed=2))
    added = current_manifest(store.catalog, store.objects).segments[-1]
    other = build_merge(store.objects, manifest, [added], graph_rows=50)
    assert graph_shape(store.objects.local_path(other.files[1].name)) == graph_shape(damaging.paths[1])
    for harmed in ([], [0]):
        data = store.objects.get(other.files[1].name)
        damaging.change(1, lambda _, data=data: bytearray(data))
        for _ in harmed:
            damaging.flip(0, damaging.place_of("document_keys") + 5)
        assert damaging.remains() is None
