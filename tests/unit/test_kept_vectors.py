"""Vectors of unchanged chunks: found in any kind of segment, of the right document only, and never when they rotted."""

from dataclasses import replace

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.publishing.merging import build_merge
from penstock.storage.segments.kept_vectors import FETCHED_BYTES, read_kept_vectors
from penstock.storage.segments.manifests import Swap

from ..storage_samples import DIMENSIONS, InterceptedObjects, current_manifest, new_store, rows_of, unit_vectors

OLD = {"a": ["one", "two", "three"], "b": ["one", "four"]}
NEW = {"a": ["zero", "one", "three", "one"], "b": ["four"], "c": ["one"]}


@pytest.fixture(params=["none", "int8"])
def store(tmp_path, request):
    return new_store(tmp_path, quantization=request.param)


def merge(store, *, graph_rows: int) -> None:
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=graph_rows)
    store.publish(swap=Swap([entry.id for entry in manifest.segments], output))


def kept(store, rows, *, document_ids=("a", "b", "c"), objects=None):
    manifest = current_manifest(store.catalog, store.objects)
    return read_kept_vectors(objects or store.objects, manifest, rows, document_ids=document_ids)


@pytest.mark.parametrize("graph_rows", [None, 10_000, 1])
def test_unchanged_chunks_have_the_very_vectors_they_had(store, graph_rows):
    store.add(OLD)
    store.add({f"x{i}": ["one", "two"] for i in range(40)}, seed=5)
    if graph_rows:
        merge(store, graph_rows=graph_rows)
    vectors = unit_vectors(5)  # of OLD, in its order

    mask, found = kept(store, rows_of(NEW))

    assert mask.tolist() == [False, True, True, True, True, False]
    assert np.array_equal(found[[1, 2, 3, 4]], vectors[[0, 2, 0, 4]])
    assert not found[[0, 5]].any()


def test_only_documents_that_are_asked_for_are_looked_for(store):
    store.add(OLD)

    mask, _ = kept(store, rows_of(NEW), document_ids={"b"})

    assert mask.tolist() == [False, False, False, False, True, False]


def test_what_left_the_document_is_not_found_any_more(store):
    store.add(OLD)
    store.add({"a": ["two"]})
    store.publish(removed_document_ids=["b"])

    mask, _ = kept(store, rows_of({"a": ["one", "two"], "b": ["one"]}))

    assert mask.tolist() == [False, True, False]


def test_chunks_of_one_document_are_found_in_several_segments(store):
    store.add({"a": ["one"]})
    manifest = current_manifest(store.catalog, store.objects)
    store.add({"b": ["two"]})
    both = [*manifest.segments, *current_manifest(store.catalog, store.objects).segments]
    united = replace(manifest, segments=list({entry.id: entry for entry in both}.values()))

    mask, _ = read_kept_vectors(store.objects, united, rows_of({"a": ["one"], "b": ["two"]}), document_ids={"a", "b"})

    assert mask.all()


@pytest.mark.parametrize("graph_rows", [10_000, 1])
def test_a_vector_that_rotted_is_never_kept(store, graph_rows):
    store.add({f"d{i}": [f"text {i}"] for i in range(30)})
    merge(store, graph_rows=graph_rows)
    (entry,) = current_manifest(store.catalog, store.objects).segments
    vector = unit_vectors(30)[7].tobytes()
    path = store.objects.local_path(entry.files[-1].name)
    data = path.read_bytes()
    place = data.index(vector) + 4 * DIMENSIONS // 2
    path.chmod(0o600)
    path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])

    with pytest.raises(Damaged):
        kept(store, rows_of({"d7": ["text 7"]}), document_ids={"d7"})


@pytest.mark.parametrize("away", [True, False])
def test_a_large_segment_that_lies_elsewhere_is_not_downloaded_for_a_few_vectors(store, monkeypatch, away):
    store.add(OLD)
    opened: list[str] = []

    def note(_number, method, *arguments):
        opened.extend(arguments[:1] if method == "local_path" else ())

    remote = InterceptedObjects(store.objects, note)
    monkeypatch.setattr(remote, "is_local", lambda _name: not away, raising=False)
    manifest = current_manifest(store.catalog, store.objects)
    large = [
        replace(entry, files=[replace(file, size_bytes=FETCHED_BYTES + 1) for file in entry.files])
        for entry in manifest.segments
    ]
    asked = replace(manifest, segments=large)
    if away:
        mask, _ = read_kept_vectors(remote, asked, rows_of(NEW), document_ids={"a", "b"})
        assert not mask.any()
        assert not opened
    else:
        with pytest.raises(Damaged):  # it is opened, and its size is not what this manifest says
            read_kept_vectors(remote, asked, rows_of(NEW), document_ids={"a", "b"})
