"""What differs between two versions: equal to a comparison of everything, read from what differs alone."""

import gc
import random
import weakref
from dataclasses import replace as replace_fields

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.publishing.merging import build_merge
from penstock.storage.segments import differences, document_keys, records, version_changes
from penstock.storage.segments.differences import ChangeCounts, Comparison, rank
from penstock.storage.segments.files import SEGMENT_KIND
from penstock.storage.segments.manifests import Swap
from penstock.storage.segments.sections import open_sections
from penstock.storage.segments.version_changes import VersionChange, VersionChanges

from ..storage_samples import InterceptedObjects, Store, new_store, rows_of, unit_vectors


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


def manifest(store: Store, version: int):
    return store.published[version - 1].manifest if version else None


def compare(objects, before, after):
    return list(Comparison(objects, before, after).changes())


def told(changes) -> dict[str, tuple[object, object]]:
    """Per document its number and chunks before and after."""

    def of(served):
        return served and (served.document.number, served.chunks)

    return {change.document.document_id: (of(change.before), of(change.after)) for change in changes}


def replace(store: Store, texts, *, number: int):
    rows = rows_of(texts, number=number)
    store.publish(additions=rows, vectors=unit_vectors(len(rows), seed=number))


def merge(store: Store, first: int = 0, end: int | None = None) -> None:
    current = store.published[-1].manifest
    inputs = current.segments[first:end]
    merged = build_merge(store.objects, current, inputs)
    store.publish(swap=Swap([each.id for each in inputs], merged))


def test_documents_are_added_changed_and_removed(store):
    store.add({"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"]})
    replace(store, {"a": ["uno"], "d": ["d1"]}, number=2)
    store.publish(removed_document_ids=["b"])

    assert told(compare(store.objects, manifest(store, 1), manifest(store, 3))) == {
        "a": ((1, 2), (2, 1)),
        "b": ((1, 1), None),
        "d": (None, (2, 1)),
    }
    assert told(compare(store.objects, manifest(store, 3), manifest(store, 1))) == {
        "a": ((2, 1), (1, 2)),
        "b": (None, (1, 1)),
        "d": ((2, 1), None),
    }
    assert told(compare(store.objects, None, manifest(store, 1))).keys() == {"a", "b", "c"}
    assert compare(store.objects, None, None) == []


def test_a_version_does_not_differ_from_itself_nor_from_its_merge(store):
    store.add({"a": ["a1", "a2"], "b": ["b1"]})
    store.add({"c": ["c1"]})
    merge(store)
    for one, other in ((1, 1), (2, 3), (3, 2)):
        assert compare(store.objects, manifest(store, one), manifest(store, other)) == []


def test_what_came_and_went_again_is_no_difference(store):
    store.add({"a": ["a1"]})
    store.add({"b": ["b1"]})
    store.publish(removed_document_ids=["b"])
    assert compare(store.objects, manifest(store, 1), manifest(store, 3)) == []


def test_what_is_equal_is_not_read(store):
    for name in "abcdef":
        store.add({name: ["one", "two"]})
    replace(store, {"c": ["drei"]}, number=2)
    read: list[str] = []
    objects = InterceptedObjects(store.objects, lambda _number, _method, name, *_: read.append(name))
    changes = compare(objects, manifest(store, 6), manifest(store, 7))
    assert told(changes) == {"c": ((1, 2), (2, 1))}
    allowed = {
        file.name
        for one, other in ((6, 7), (7, 6))
        for entry in manifest(store, one).segments
        if entry not in manifest(store, other).segments
        for file in entry.all_files
    }
    assert set(read) <= allowed


def pages(comparison: Comparison, *, limit: int) -> list[list[str]]:
    """The ids of the documents that differ, page by page."""
    found: list[list[str]] = []
    while page := comparison.page(after=found[-1][-1] if found else None, limit=limit):
        found.append([change.document.document_id for change in page])
    return found


@pytest.fixture
def many(store) -> Store:
    """Version 1 has a hundred documents, of which version 2 replaced forty, and has ten others."""
    store.add({f"d{i}": ["one", "two"] for i in range(100)})
    replace(store, {f"d{i}": ["uno"] for i in range(60, 110)}, number=2)
    return store


@pytest.mark.parametrize("limit", [1, 7, 50, 1000])
@pytest.mark.parametrize("slice_documents", [1, 5, 1000])
def test_pages_tell_what_the_whole_does_in_one_order(many, monkeypatch, limit, slice_documents):
    monkeypatch.setattr(differences, "_SLICE_DOCUMENTS", slice_documents)
    comparison = Comparison(many.objects, manifest(many, 1), manifest(many, 2))
    found = pages(comparison, limit=limit)
    told = [name for page in found for name in page]
    assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
    assert told == sorted(told, key=rank)
    assert set(told) == {f"d{i}" for i in range(60, 110)}
    by_id = comparison.version_changes()
    assert list(by_id.document_ids()) == [change.document_id for change in by_id] == sorted(told)
    assert comparison.counts() == ChangeCounts(added=10, changed=40, removed=0)
    assert Comparison(many.objects, manifest(many, 2), manifest(many, 1)).counts() == ChangeCounts(0, 40, 10)


def test_a_page_decodes_only_its_documents_and_a_count_none(many, monkeypatch):
    decoded: list[bytes] = []
    record = records._record
    monkeypatch.setattr(records, "_record", lambda line: decoded.append(line) or record(line))
    comparison = Comparison(many.objects, manifest(many, 1), manifest(many, 2))
    comparison.counts()
    assert decoded == []
    comparison.page(after=None, limit=5)
    assert 5 <= len(decoded) <= 10  # each as it was and as it is


def test_a_comparison_holds_no_document_that_it_has_told(many, monkeypatch):
    monkeypatch.setattr(differences, "_SLICE_DOCUMENTS", 8)
    record = records._record

    def noted(line: bytes) -> records.DocumentRecord:
        made = record(line)
        kept.append(weakref.ref(made))
        return made

    kept: list[weakref.ref[records.DocumentRecord]] = []
    monkeypatch.setattr(records, "_record", noted)
    most = 0
    comparison = Comparison(many.objects, manifest(many, 1), manifest(many, 2))
    gc.freeze()  # what other tests have left in this process is not looked through 90 times
    try:
        for _ in comparison.changes():
            gc.collect()
            most = max(most, sum(one() is not None for one in kept))
    finally:
        gc.unfreeze()
    assert len(kept) == 90
    assert most <= 2 * 8


def test_once_opened_a_comparison_asks_the_store_nothing(many):
    asked: list[str] = []
    objects = InterceptedObjects(many.objects, lambda _number, method, *_: asked.append(method))
    comparison = Comparison(objects, manifest(many, 1), manifest(many, 2))
    asked.clear()
    assert len(comparison.version_changes()) == comparison.counts().added + 40
    assert asked == []


def test_the_catalog_is_told_numbers_chunks_and_hashes_by_id(store, monkeypatch):
    monkeypatch.setattr(version_changes, "_AT_ONCE", 2)
    store.add({"a": ["a1", "a2"], "b": ["b1"], "c": ["c1"]})
    replace(store, {"a": ["uno"], "d": ["d1"]}, number=2)
    store.publish(removed_document_ids=["b"])
    one, three = manifest(store, 1), manifest(store, 3)
    there, back = (Comparison(store.objects, *pair).version_changes() for pair in ((one, three), (three, one)))
    assert [change[:4] for change in there] == [("a", 1, 2, 1), ("b", 1, None, 0), ("d", None, 2, 1)]
    assert [change[:4] for change in back] == [("a", 2, 1, 2), ("b", None, 1, 1), ("d", 2, None, 0)]
    assert [list(changes.document_ids()) for changes in (there, back)] == [["a", "b", "d"]] * 2
    assert list(there) == list(there)  # as often as somebody asks


def test_what_is_packed_comes_out_as_it_went_in_or_is_refused():
    ends_in_nothing = b"\x01" + bytes(31)
    changes = [
        VersionChange("b", before=None, after=7, chunks=3, content_hash=ends_in_nothing),
        VersionChange("a", before=1, after=None, chunks=0, content_hash=None),
    ]
    assert list(VersionChanges.of(changes)) == sorted(changes)
    assert changes[0].is_of(ends_in_nothing)
    assert not changes[0].is_of(bytes(32))
    assert changes[1].is_of(bytes(32))
    for spoilt in (changes[0]._replace(content_hash=b"short"), changes[0]._replace(document_id="d" * 65)):
        with pytest.raises(Damaged, match="is not what was written"):
            VersionChanges.of([spoilt])


def test_documents_whose_keys_are_equal_are_told_apart(store, monkeypatch):
    key = document_keys._key
    monkeypatch.setattr(document_keys, "_key", lambda encoded: key(encoded) % 3)
    monkeypatch.setattr(differences, "_SLICE_DOCUMENTS", 2)
    store.add({f"d{i}": ["one"] for i in range(12)})
    replace(store, {f"d{i}": ["uno"] for i in range(0, 12, 4)}, number=2)
    store.publish(removed_document_ids=["d1", "d2"])
    comparison = Comparison(store.objects, manifest(store, 1), manifest(store, 3))
    assert told(comparison.changes()) == {
        **dict.fromkeys(("d0", "d4", "d8"), ((1, 1), (2, 1))),
        **dict.fromkeys(("d1", "d2"), ((1, 1), None)),
    }
    assert comparison.counts() == ChangeCounts(added=0, changed=3, removed=2)
    assert list(comparison.version_changes().document_ids()) == ["d0", "d1", "d2", "d4", "d8"]
    assert sorted(name for page in pages(comparison, limit=1) for name in page) == ["d0", "d1", "d2", "d4", "d8"]


def test_chunks_that_do_not_lie_in_the_order_of_their_documents_are_found(store):
    mixed = replace_fields(rows_of({"a": ["a1", "a2"], "b": ["b1", "b2"]}), document=np.array([0, 1, 0, 1], "<u4"))
    store.publish(additions=mixed, vectors=unit_vectors(4))
    store.publish(removed_document_ids=["a"])
    assert told(compare(store.objects, manifest(store, 1), manifest(store, 2))) == {"a": ((1, 2), None)}


def test_a_list_of_documents_that_rotted_is_refused(many):
    path = many.objects.local_path(manifest(many, 1).segments[0].files[0].name)
    data = bytearray(path.read_bytes())
    at = open_sections(path, kind=SEGMENT_KIND).places["document_keys"]
    data[at : at + 8] = b"\xff" * 8
    path.chmod(0o600)
    path.write_bytes(data)
    with pytest.raises(Damaged, match="the list of document ids"):
        Comparison(many.objects, manifest(many, 1), manifest(many, 2))


@pytest.mark.parametrize("seed", range(5))
def test_a_comparison_says_what_comparing_everything_says(tmp_path, seed):
    print("seed", seed)
    chosen, store = random.Random(seed), new_store(tmp_path)
    numbers: dict[str, int] = {}
    live: list[dict[str, tuple[int, int]]] = [{}]
    for _ in range(14):
        action, present = chosen.random(), dict(live[-1])
        if action < 0.6 or not present:
            texts = {f"d{i}": ["text"] * chosen.randint(1, 3) for i in chosen.sample(range(8), 2)}
            for name in texts:
                numbers[name] = numbers.get(name, 0) + 1
            number = max(numbers[name] for name in texts)
            numbers |= dict.fromkeys(texts, number)
            replace(store, texts, number=number)
            present |= {name: (number, len(own)) for name, own in texts.items()}
        elif action < 0.8:
            gone = chosen.choice(sorted(present))
            del present[gone]
            store.publish(removed_document_ids=[gone])
        elif store.published[-1].manifest.segments:
            merge(store)
        live.append(present)
    for before in range(len(live)):
        for after in range(len(live)):
            one, other = live[before], live[after]
            differing = {name for name in (one.keys() | other.keys()) if one.get(name) != other.get(name)}
            found = told(compare(store.objects, manifest(store, before), manifest(store, after)))
            assert found == {name: (one.get(name), other.get(name)) for name in differing}
            comparison = Comparison(store.objects, manifest(store, before), manifest(store, after))
            assert list(comparison.version_changes().document_ids()) == sorted(differing)
            gone, came = one.keys() - other.keys(), other.keys() - one.keys()
            assert comparison.counts() == ChangeCounts(len(came), len(differing) - len(gone | came), len(gone))
