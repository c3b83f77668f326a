"""Files that were truncated or altered are refused with an error that names them: never a crash, never wrong data."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from penstock.storage.errors import Damaged, StorageError
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Swap
from penstock.storage.segments.manifests import FileEntry, Manifest, read_manifest
from penstock.storage.segments.segment import open_segment, verify_segment
from penstock.storage.segments.tombstones import read_deletes

from ..storage_samples import Store, current_manifest, many_rows, new_store, unit_vectors

FLIPS_PER_FILE = 150
TRUNCATIONS_PER_FILE = 60


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Store, Manifest]:
    """A generation with a graph and a flat segment, both with tombstones."""
    store = new_store(tmp_path_factory.mktemp("store"))
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


def open_and_read(store: Store, entry, manifest: Manifest) -> None:
    """Do with a segment what a search does, as far as it goes without the kernels."""
    segment = open_segment(store.objects, entry, dimensions=manifest.dimensions)
    read_deletes(store.objects, entry)
    segment.row_vectors(np.arange(entry.row_count))
    for row in range(entry.row_count):
        segment.rows.text(row)
        segment.rows.heading(row)
        _ = segment.documents[int(segment.rows.document[row])]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
