"""Files that were truncated or altered are refused with an error that names them: never a crash, never wrong data."""

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from penstock.storage.catalog.generations import generation_info
from penstock.storage.errors import Damaged, StorageError
from penstock.storage.ids import BatchId
from penstock.storage.inspection.checksums import CheckedFiles
from penstock.storage.inspection.contents import read_contents
from penstock.storage.inspection.remains import read_remains
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Swap, Trim
from penstock.storage.publishing.revisions import plan_rewriting
from penstock.storage.search import planner, versions
from penstock.storage.search.versions import Snapshot
from penstock.storage.segments import segment as opening
from penstock.storage.segments.checks import verify_segment
from penstock.storage.segments.differences import Comparison
from penstock.storage.segments.fields import Compare, Exists, Member
from penstock.storage.segments.lookups import copy_rows, read_document_rows
from penstock.storage.segments.manifests import FileEntry, Manifest, read_manifest
from penstock.storage.segments.sections import open_sections
from penstock.storage.segments.segment import open_segment
from penstock.storage.segments.tombstones import read_deletes
from penstock.workers import staging

from ..storage_samples import (
    DIMENSIONS,
    GENERATION,
    TENANT,
    Store,
    current_manifest,
    many_rows,
    new_store,
    unit_vectors,
)

FLIPS_PER_FILE = 150
TRUNCATIONS_PER_FILE = 60
ROTS_PER_FILE = 80
SEARCHED_PER_FILE = 40


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Store, Manifest]:
    """A generation with a graph and a flat segment, both with tombstones."""
    return publish(new_store(tmp_path_factory.mktemp("store")))


@pytest.fixture(scope="module", params=["none", "int8"])
def searched(request, tmp_path_factory, published) -> tuple[Store, Manifest]:
    """The same, and one whose graph is walked by int8 codes."""
    if request.param == "none":
        return published
    return publish(new_store(tmp_path_factory.mktemp("rounded"), quantization="int8"))


def publish(store: Store) -> tuple[Store, Manifest]:
    store.publish(additions=many_rows(120), vectors=unit_vectors(120))
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=50)
    store.publish(swap=Swap([manifest.segments[0].id], output), removed_document_ids=["d1", "d20"])
    store.publish(additions=many_rows(30, prefix="e"), vectors=unit_vectors(30, seed=1))
    store.publish(removed_document_ids=["e1"])
    manifest = current_manifest(store.catalog, store.objects)
    assert [(entry.kind, entry.deleted_count > 0) for entry in manifest.segments] == [("graph", True), ("flat", True)]
    return store, manifest


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


class Altered:
    """A file of the store with other bytes, put back at the end of the block. The inode is new, as after a restore."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path.read_bytes()

    def write(self, data: bytes) -> None:
        self.path.unlink()
        self.path.write_bytes(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.write(self.data)


def files_of(manifest: Manifest) -> list[tuple[int, FileEntry]]:
    return [(number, file) for number, entry in enumerate(manifest.segments) for file in entry.all_files]


def test_there_are_files_of_every_kind(published):
    _, manifest = published

    assert {file.name.rpartition(".")[2] for _, file in files_of(manifest)} == {"segment", "hnsw", "deletes"}


def test_every_truncated_file_is_refused_when_it_is_opened(published, rng):
    store, manifest = published
    for number, file in files_of(manifest):
        entry = manifest.segments[number]
        with Altered(store.objects.local_path(file.name)) as altered:
            for size in {0, 1, file.size_bytes - 1, *rng.choices(range(file.size_bytes), k=TRUNCATIONS_PER_FILE)}:
                altered.write(altered.data[:size])
                with pytest.raises(Damaged, match=file.name.rpartition("/")[2]):
                    verify_segment(store.objects, entry, dimensions=manifest.dimensions)
                if file in entry.files:
                    with pytest.raises(Damaged):
                        open_segment(store.objects, entry, dimensions=manifest.dimensions)


def test_every_truncated_file_is_refused_even_by_a_manifest_that_agrees(published, rng):
    """The files' own structure must tell, not only the size that the manifest states."""
    store, manifest = published
    for number, file in files_of(manifest):
        entry = manifest.segments[number]
        with Altered(store.objects.local_path(file.name)) as altered:
            for size in rng.choices(range(file.size_bytes), k=TRUNCATIONS_PER_FILE):
                altered.write(altered.data[:size])
                agreeing = replace(file, size_bytes=size)
                described = replace(
                    entry,
                    files=[agreeing if each == file else each for each in entry.files],
                    deletes=agreeing if entry.deletes == file else entry.deletes,
                )
                with pytest.raises(Damaged):
                    open_and_read(store, described, manifest)


def test_every_flipped_bit_is_refused_when_a_segment_is_verified(published, rng):
    store, manifest = published
    for number, file in files_of(manifest):
        entry = manifest.segments[number]
        with Altered(store.objects.local_path(file.name)) as altered:
            for bit in rng.sample(range(8 * file.size_bytes), FLIPS_PER_FILE):
                altered.write(flipped(altered.data, bit))
                with pytest.raises(Damaged, match=file.name.rpartition("/")[2]):
                    verify_segment(store.objects, entry, dimensions=manifest.dimensions)


def test_a_flipped_bit_never_crashes_what_opens_and_reads_without_verifying(published, rng):
    store, manifest = published
    refused = 0
    for number, file in files_of(manifest):
        entry = manifest.segments[number]
        with Altered(store.objects.local_path(file.name)) as altered:
            # The first half of the flips goes where the structure is: at the beginning.
            bits = rng.choices(range(8 * min(2_048, file.size_bytes)), k=FLIPS_PER_FILE)
            for bit in [*bits, *rng.choices(range(8 * file.size_bytes), k=FLIPS_PER_FILE)]:
                altered.write(flipped(altered.data, bit))
                try:
                    open_and_read(store, entry, manifest)
                except StorageError:
                    refused += 1
    assert refused > FLIPS_PER_FILE


def test_whatever_rots_each_reader_ends_with_a_named_error_or_an_answer(published, rng):
    """Also those that look at a few places of a file: publishing, comparing, examining and mending."""
    store, manifest = published
    errors = 0
    for number, file in files_of(manifest):
        entry = manifest.segments[number]
        with Altered(store.objects.local_path(file.name)) as altered:
            for _ in range(ROTS_PER_FILE):
                altered.write(rotten(altered, rng))
                for read in READERS.values():
                    try:
                        read(store, replace(manifest, segments=[entry]))
                    except StorageError:
                        errors += 1
    assert errors > ROTS_PER_FILE


@pytest.mark.parametrize("sampled", [True, False])
def test_whatever_rots_every_way_of_searching_ends_with_a_named_error_or_an_answer(searched, rng, monkeypatch, sampled):
    """With what opening looks at, which is all of a small segment, and without, as what it misses of a large one."""
    store, manifest = searched
    if not sampled:
        monkeypatch.setattr(versions, "open_sampled", open_segment)
    ended = Counter[str]()
    for number, file in files_of(manifest):
        alone = replace(manifest, segments=[manifest.segments[number]])
        with Altered(store.objects.local_path(file.name)) as altered:
            for data in [*each_section_rotten(altered, rng), *(rotten(altered, rng) for _ in range(SEARCHED_PER_FILE))]:
                altered.write(data)
                monkeypatch.setattr(opening, "MAPPED_BYTES", rng.choice([0, opening.MAPPED_BYTES]))
                ended.update(search(store, alone, monkeypatch))
    print(ended)
    assert ended["refused"] > SEARCHED_PER_FILE
    if not sampled:
        assert all(ended[way, outcome] for way in WAYS for outcome in ("answered", "refused")), ended


@pytest.mark.parametrize(
    ("section", "read", "told"),
    [
        ("document", "contents_of", "'document' does not match its checksum"),
        ("document", "compare", "whose the chunks are is not what was written"),
        ("document_order", "find", "list of document ids is not what"),
    ],
)
def test_places_that_lead_out_of_a_file_are_refused(published, section, read, told):
    store, manifest = published
    alone = replace(manifest, segments=manifest.segments[1:])
    with Altered(store.objects.local_path(alone.segments[0].files[0].name)) as altered:
        sections = open_sections(altered.path, kind="segment")
        at, size = sections.places[section], sections.arrays[section].nbytes
        altered.write(altered.data[:at] + b"\xff" * size + altered.data[at + size :])
        with pytest.raises(Damaged, match=told):
            READERS[read](store, alone)


def test_a_missing_file_is_refused_by_name(published):
    store, manifest = published
    for number, file in files_of(manifest):
        with Altered(store.objects.local_path(file.name)) as altered:
            altered.path.rename(altered.path.with_suffix(".away"))
            with pytest.raises(Damaged, match="missing"):
                verify_segment(store.objects, manifest.segments[number], dimensions=manifest.dimensions)
            altered.path.with_suffix(".away").rename(altered.path)


def test_a_truncated_or_flipped_manifest_is_refused(published, rng):
    store, _ = published
    name = store.published[-1].name
    with Altered(store.objects.local_path(name)) as altered:
        size = len(altered.data)
        versions = [altered.data[: rng.randrange(size)] for _ in range(50)]
        versions += [flipped(altered.data, bit) for bit in rng.sample(range(8 * size), 150)]
        for data in versions:
            altered.write(data)
            with pytest.raises(Damaged, match=name):
                read_manifest(store.objects, name)
    assert read_manifest(store.objects, name)


@pytest.mark.parametrize("kind", ["chunks", "vectors", "delivered"])
def test_what_stages_hand_to_each_other_is_refused_by_name_when_it_was_truncated_or_flipped(tmp_path, rng, kind):
    objects = LocalObjects(tmp_path)
    name, read = stage(objects, kind)
    written, refused = read(), 0
    with Altered(objects.local_path(name)) as altered:
        size = len(altered.data)
        versions = [altered.data[:at] for at in {0, 1, size - 1, *rng.choices(range(size), k=TRUNCATIONS_PER_FILE)}]
        versions += [flipped(altered.data, bit) for bit in rng.sample(range(8 * size), FLIPS_PER_FILE)]
        for data in versions:
            altered.write(data)
            try:
                found = read()
            except Damaged as error:
                assert altered.path.name in str(error)  # noqa: PT017  which of the two it is depends on the bit
                refused += 1
            else:
                assert found in (written, {}), "of padding, or deliveries, of which a lost one is not there"
                refused += found == {}
    assert refused > TRUNCATIONS_PER_FILE + FLIPS_PER_FILE // 2
    assert read() == written


def stage(objects: LocalObjects, kind: str) -> tuple[str, Callable[[], object]]:
    """Store a staged file of one kind; return its name, and what reads all of it as plain values."""
    rows, vectors = many_rows(40), unit_vectors(40)
    batch = {"tenant": TENANT, "batch_id": BatchId("batch_1")}
    if kind == "chunks":
        name = staging.write_chunks(objects, rows, **batch)
        return name, lambda: {k: v.tobytes() for k, v in staging.read_chunks(objects, name).to_arrays().items()}
    if kind == "vectors":
        name = staging.write_vectors(objects, vectors, attempt=1, **batch)
        return name, lambda: staging.read_vectors(objects, name, count=40).tolist()
    name = staging.write_delivered(objects, {bytes([at] * 32): vectors[at] for at in range(40)}, **batch)
    return name, lambda: {
        digest: vector.tolist()
        for digest, vector in staging.read_delivered(objects, [name], dimensions=DIMENSIONS).items()
    }


def open_and_read(store: Store, entry, manifest: Manifest) -> None:
    """Read all of a segment that a search may show."""
    segment = open_segment(store.objects, entry, dimensions=manifest.dimensions)
    read_deletes(store.objects, entry)
    segment.row_vectors(np.arange(entry.row_count))
    for row in range(entry.row_count):
        segment.rows.text(row)
        segment.rows.heading(row)
        _ = segment.documents[int(segment.rows.document[row])]


def open_readers(store: Store, manifest: Manifest) -> Snapshot:
    """Open these segments to be searched, as `open_snapshot` does."""
    options = {"manifest": manifest, "former": None, "opened": {}, "costs": planner.TYPICAL}
    readers = {entry.id: versions._open_reader(store.objects, entry, **options) for entry in manifest.segments}
    return Snapshot(generation_info(store.catalog, GENERATION), manifest=manifest, readers=readers)


def search(store: Store, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Search in every way, with and without filters; return how often which ended how."""
    try:
        snapshot = open_readers(store, manifest)
    except StorageError:
        return Counter(["refused"])
    ended: Counter = Counter(["opened"])
    for (way, choice), condition in product(WAYS.items(), FILTERS):
        monkeypatch.setattr(planner, "choose", lambda _costs, choice=choice, **_options: choice)
        try:
            snapshot.search(QUERY, k=5, now=5_000.0, filter=condition)
        except StorageError:
            ended[way, "refused"] += 1
        else:
            ended[way, "answered"] += 1
    return ended


QUERY = unit_vectors(1, seed=2)[0]
WAYS = {
    "scan": planner.Choice("scan"),
    "walk": planner.Choice("walk", ef=30, budget=10**9),
    "walk, then codes": planner.Choice("walk", ef=30, budget=0),
    "codes": planner.Choice("codes"),
}
SOME = tuple(f"{prefix}{number}" for prefix in "de" for number in range(2, 20))
FILTERS = [None, Compare("eq", "topic", "d"), Exists("topic"), Member("in", "$document_id", SOME)]


def contents_of(store: Store, manifest: Manifest) -> None:
    read_contents(store.objects, manifest.segments)


def find(store: Store, manifest: Manifest) -> None:
    read_document_rows(store.objects, manifest.segments[0], document_ids=[f"{x}{i}" for x in "de" for i in range(9)])


def compare(store: Store, manifest: Manifest) -> None:
    comparison = Comparison(store.objects, None, manifest)
    comparison.counts()
    comparison.version_changes()


def copy(store: Store, manifest: Manifest) -> None:
    copy_rows(store.objects, manifest.segments[0], np.array([0, 3, 7], "<u4"), dimensions=manifest.dimensions)


def trim(store: Store, manifest: Manifest) -> None:
    plan_rewriting(store.objects, manifest, revisions=(), trims=[Trim("t", "d2", "d2-v1", [0])])


def salvage(store: Store, manifest: Manifest) -> None:
    checked = CheckedFiles(store.objects, on_bytes=lambda _: None)
    read_remains(store.objects, checked, manifest.segments[0], dimensions=manifest.dimensions)


READERS = {read.__name__: read for read in (contents_of, find, compare, copy, trim, salvage)}


def rotten(altered: Altered, rng: random.Random) -> bytes:
    """Return the file with some bytes written over, in most cases at the beginning of one of its sections."""
    at = rng.randrange(len(altered.data))
    if altered.path.suffix == ".segment" and rng.random() < 0.8:
        at = rng.choice(places_of(altered))[0]
    size = rng.choice([1, 4, 8, 64])
    new = rng.choice([b"\xff" * size, bytes(size), rng.randbytes(size), b"\xff\xff\xff\0" * -(-size // 4)])
    return overwritten(altered.data, at, new)


def each_section_rotten(altered: Altered, rng: random.Random) -> Iterator[bytes]:
    """Yield a segment file with a part of each of its sections written over, or turned around, in some ways."""
    for at, size in places_of(altered) if altered.path.suffix == ".segment" else ():
        for kind in ("zeros", "ones", "turned", "turned", "random"):
            first = at + rng.randrange(max(1, size // 4)) * 4
            part = altered.data[first : at + size]
            turned = np.frombuffer(part, "<u4", len(part) // 4)[::-1].tobytes()
            new = {"zeros": bytes(8), "ones": b"\xff" * 4, "turned": turned, "random": rng.randbytes(len(part))}[kind]
            yield overwritten(altered.data, first, new[: len(part)])


def places_of(altered: Altered) -> list[tuple[int, int]]:
    """Return where each section of a segment file begins, and its size in bytes."""
    altered.write(altered.data)
    sections = open_sections(altered.path, kind="segment")
    return [(at, sections.arrays[name].nbytes) for name, at in sections.places.items()]


def overwritten(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new[: len(data) - at] + data[at + len(new) :]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
