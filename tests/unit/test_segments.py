"""Segments and tombstones: what was written is mapped back, and nothing else is."""

from dataclasses import replace

import numpy as np
import pytest

from penstock.storage import paths
from penstock.storage.errors import Damaged
from penstock.storage.ids import GenerationId, SegmentId, TenantId
from penstock.storage.objects.store import ObjectStore
from penstock.storage.segments.checks import verify_segment
from penstock.storage.segments.lookups import read_chunk_ids
from penstock.storage.segments.manifests import SegmentEntry
from penstock.storage.segments.segment import open_segment, write_segment
from penstock.storage.segments.tombstones import read_deletes, with_deletes

from ..memory_objects import MemoryObjects
from ..storage_samples import DIMENSIONS, GENERATION, TENANT, many_rows, record, rows_of, unit_vectors


def written(objects: ObjectStore, *, count: int = 10, first: int = 1) -> SegmentEntry:
    return write_segment(
        objects,
        tenant=TENANT,
        generation_id=GENERATION,
        rows=many_rows(count),
        chunk_ids=np.arange(first, first + count, dtype="<u8"),
        vectors=unit_vectors(count),
    )


def buried(objects: ObjectStore, entry: SegmentEntry, rows: list[int]) -> SegmentEntry:
    return with_deletes(objects, entry, tenant=TENANT, generation_id=GENERATION, rows=np.array(rows, "<u4"))


def test_a_flat_segment_is_opened_as_written():
    objects = MemoryObjects()
    entry = written(objects, first=41)

    segment = open_segment(objects, entry, dimensions=DIMENSIONS)

    assert (entry.kind, entry.row_count, entry.first_chunk_id, entry.last_chunk_id) == ("flat", 10, 41, 50)
    assert np.array_equal(segment.vectors, unit_vectors(10))
    assert segment.chunk_ids.tolist() == list(range(41, 51))
    assert segment.rows.texts() == many_rows(10).texts()
    assert segment.documents == many_rows(10).documents
    assert np.array_equal(segment.row_vectors(np.array([3, 1])), unit_vectors(10)[[3, 1]])
    assert "fields/postings" in segment.sections.arrays
    verify_segment(objects, entry, dimensions=DIMENSIONS)


def test_vectors_are_mapped_on_a_cache_line_and_cannot_be_changed():
    objects = MemoryObjects()

    vectors = open_segment(objects, written(objects), dimensions=DIMENSIONS).vectors

    assert vectors.__array_interface__["data"][0] % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        vectors[0, 0] = 1


def test_every_row_has_the_times_of_its_document():
    objects = MemoryObjects()
    timed = replace(
        rows_of({"a": ["1", "2"], "b": ["3"]}),
        documents=type(many_rows(1).documents).of(
            [record("a", event_time=5.0, expires_at=9.0, ingested_at=7.0), record("b")]
        ),
    )
    chunk_ids = np.arange(1, 4, dtype="<u8")
    entry = write_segment(
        objects, tenant=TENANT, generation_id=GENERATION, rows=timed, chunk_ids=chunk_ids, vectors=unit_vectors(3)
    )

    segment = open_segment(objects, entry, dimensions=DIMENSIONS)

    assert np.array_equal(segment.event_time, [5.0, 5.0, np.nan], equal_nan=True)
    assert segment.expires_at.tolist() == [9.0, 9.0, np.inf]
    assert segment.ingested_at.tolist() == [7.0, 7.0, 1_000.0]


def test_chunk_ids_are_read_without_the_rest():
    objects = MemoryObjects()

    assert read_chunk_ids(objects, written(objects, first=3)).tolist() == list(range(3, 13))


def test_a_segment_that_is_not_what_the_manifest_says_is_damaged():
    objects = MemoryObjects()
    entry, other = written(objects), written(objects, count=11)

    wrong = [
        replace(entry, id=SegmentId("seg_other")),
        replace(entry, row_count=9),
        replace(entry, first_chunk_id=2),
        replace(entry, last_chunk_id=99),
        replace(entry, files=other.files),
        replace(entry, files=[replace(entry.files[0], size_bytes=entry.files[0].size_bytes + 1)]),
        replace(entry, files=[replace(entry.files[0], name="tenants/acme/nothing.segment")]),
    ]
    for described in wrong:
        with pytest.raises(Damaged, match="segment"):
            open_segment(objects, described, dimensions=DIMENSIONS)
    with pytest.raises(Damaged, match="vectors"):
        open_segment(objects, entry, dimensions=DIMENSIONS + 1)
    for tenant, generation_id in (("other", GENERATION), (TENANT, "gen_other")):
        name = paths.segment(TenantId(tenant), GenerationId(generation_id), entry.id)
        objects.put(name, [objects.get(entry.files[0].name)])
        moved = replace(entry, files=[replace(entry.files[0], name=name)])
        with pytest.raises(Damaged, match=f"{name} holds another segment"):
            open_segment(objects, moved, dimensions=DIMENSIONS)
        with pytest.raises(Damaged, match="another segment"):
            read_chunk_ids(objects, moved)
    altered = replace(entry, files=[replace(entry.files[0], blake2b="00" * 32)])
    with pytest.raises(Damaged, match="checksum"):
        verify_segment(objects, altered, dimensions=DIMENSIONS)


def test_tombstones_are_read_as_written_and_belong_to_one_segment():
    objects = MemoryObjects()
    entry = buried(objects, written(objects), [0, 4, 9])

    assert read_deletes(objects, entry).tolist() == [0, 4, 9]
    assert (entry.deleted_count, entry.live_count) == (3, 7)
    assert read_deletes(objects, written(objects)).size == 0
    with pytest.raises(Damaged, match="tombstones"):
        read_deletes(objects, replace(entry, id=SegmentId("seg_other")))
    with pytest.raises(Damaged):
        read_deletes(objects, replace(entry, deleted_count=2))
    with pytest.raises(Damaged, match="tombstones"):
        read_deletes(objects, replace(entry, row_count=9))
    with pytest.raises(Damaged, match="tombstones"):
        read_deletes(objects, buried(objects, entry, [4, 4]))


def test_object_names_are_those_of_the_design():
    tenant, generation = TenantId("acme"), GenerationId("gen_1")

    assert paths.segment(tenant, generation, SegmentId("s")) == "tenants/acme/generations/gen_1/segments/s.segment"
    assert paths.graph(tenant, generation, SegmentId("s")) == "tenants/acme/generations/gen_1/segments/s.hnsw"
    assert paths.deletes(tenant, generation, "d") == "tenants/acme/generations/gen_1/deletes/d.deletes"
    assert paths.pack(tenant, digest="0f") == "tenants/acme/packs/0f"
    assert paths.staged_chunks(tenant, "b") == "tenants/acme/staging/b/chunks"
    assert paths.staged_vectors(tenant, "b", attempt=2) == "tenants/acme/staging/b/vectors-2"
    assert paths.batch_of("tenants/acme/staging/b/chunks") == "b"
    assert paths.generation_of("tenants/acme/generations/gen_1/segments/s.hnsw") == "gen_1"
    name = paths.manifest(tenant, generation, version=12, digest="0123456789abcdef")
    assert name == "tenants/acme/generations/gen_1/manifests/00000000000000000012-01234567.json"
    assert paths.manifest_version(name) == 12
    assert paths.manifest_version("tenants/acme/generations/gen_1/segments/s.segment") is None
