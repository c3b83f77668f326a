"""What differs between two versions: equal to a comparison of everything, read from what differs alone."""

import random

import pytest

from penstock.storage.publishing.merging import build_merge
from penstock.storage.segments.differences import compare
from penstock.storage.segments.manifests import Swap

from ..storage_samples import InterceptedObjects, Store, new_store, rows_of, unit_vectors


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


def manifest(store: Store, version: int):
    return store.published[version - 1].manifest if version else None


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
