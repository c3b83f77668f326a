"""Rows that are served already: described anew, trimmed, selected, whatever merges do meanwhile."""

import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from penstock.storage.catalog.generations import generation_info
from penstock.storage.errors import Damaged
from penstock.storage.ids import GenerationId
from penstock.storage.intake.selections import locate_chunks, select_documents
from penstock.storage.intake.trims import LocatedChunk
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Revision, Trim
from penstock.storage.search.mismatches import FilterMismatch
from penstock.storage.search.versions import Snapshot, open_snapshot
from penstock.storage.segments.fields import Compare
from penstock.storage.segments.manifests import Swap
from penstock.storage.segments.sections import open_sections

from ..storage_samples import GENERATION, Store, current_manifest, new_store, record, rows_of, texts_of, unit_vectors


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


def revision(document_id: str, *, number: int = 2, **values) -> Revision:
    given = {"title": None, "metadata": {"month": 2}, "event_time": None, "expires_at": None, "metadata_hash": b"h"}
    return Revision(document_id, version_id=f"{document_id}-v{number}", number=number, **{**given, **values})


def trim(document_id: str, *ordinals: int, number: int = 1, name: str = "t") -> Trim:
    return Trim(name, document_id, text_version_id=f"{document_id}-v{number}", ordinals=ordinals)


def snapshot_of(store: Store) -> Snapshot:
    return open_snapshot(store.objects, generation_info(store.catalog, GenerationId(GENERATION)))


def merged(store: Store, *, graph_rows: int) -> Swap:
    manifest = current_manifest(store.catalog, store.objects)
    output = build_merge(store.objects, manifest, manifest.segments, graph_rows=graph_rows)
    return Swap([entry.id for entry in manifest.segments], output)


def selected(store: Store, key: str, value: object) -> list[str]:
    return select_documents(snapshot_of(store), Compare("eq", key, value), now=0.0).document_ids


@pytest.mark.parametrize("graph_rows", [1, 10_000])
def test_a_revised_document_keeps_its_text_and_vectors_and_says_something_else(store, graph_rows):
    store.add({"a": ["one", "two"], "b": ["three"]})
    store.publish(swap=merged(store, graph_rows=graph_rows))
    before, former = store.content(), snapshot_of(store)

    published = store.publish(revisions=[revision("a", title="A", event_time=5.0, expires_at=9.0)])

    assert published.manifest.version == 3
    assert {name: sorted(chunks) for name, chunks in store.content().items()} == before
    assert (selected(store, "month", 2), selected(store, "topic", "b")) == (["a"], ["b"])
    with pytest.raises(FilterMismatch):
        selected(store, "topic", 1)
    assert select_documents(former, Compare("eq", "topic", "a"), now=0.0).document_ids == ["a"]
    described = Compare("eq", "month", 2)
    record = snapshot_of(store).search(unit_vectors(1)[0], k=1, ef=10, filter=described, now=0.0)[0].document
    assert (record.number, record.version_id, record.text_version) == (2, "a-v2", "a-v1")
    assert (record.title, record.event_time, record.expires_at) == ("A", 5.0, 9.0)
    assert select_documents(snapshot_of(store), Compare("eq", "month", 2), now=9.0).document_ids == []


def test_a_collection_that_is_only_described_anew_keeps_few_segments(store):
    store.add({f"d{i}": [f"text {i}"] for i in range(5)})
    for number in range(2, 80):
        store.publish(revisions=[revision(f"d{number % 5}", number=number)])

    assert len(store.published[-1].manifest.segments) <= 3 * 7
    assert {name: len(chunks) for name, chunks in store.content().items()} == {f"d{i}": 1 for i in range(5)}


def test_a_revision_of_a_document_without_chunks_publishes_nothing(store):
    store.add({"a": ["one"]})
    assert not store.publish(revisions=[revision("nobody")]).changed


def test_a_trim_takes_its_chunks_and_no_others_and_says_how_many(store):
    first = store.add({"a": ["one", "two", "three"], "b": ["four"]})
    published = store.publish(
        trims=[trim("a", 0, 2, 7), trim("a", 2, name="again"), trim("b", 0, number=9, name="old")]
    )
    assert texts_of(store.content()) == {"a": ["two"], "b": ["four"]}
    assert published.trimmed == {"t": 2, "again": 0, "old": 0}
    assert published.manifest.version == first.manifest.version + 1
    assert not store.publish(trims=[trim("a", 0)]).changed


@pytest.mark.parametrize("section", ["text_bytes", "vectors"])
def test_what_rotted_is_not_written_again_under_a_new_checksum(store, section):
    store.add({"a": ["one", "two"], "b": ["three"]})
    name = current_manifest(store.catalog, store.objects).segments[0].files[0].name
    path = store.objects.local_path(name)
    sections, data = open_sections(path, kind="segment"), bytearray(path.read_bytes())
    data[sections.places[section]] ^= 1
    path.unlink()
    path.write_bytes(data)

    with pytest.raises(Damaged, match=f"{path.name}: section '{section}' does not match its checksum"):
        store.publish(revisions=[revision("a")])
    published = store.publish(trims=[trim("a", 0)])  # which copies nothing
    assert (published.manifest.version, published.trimmed) == (2, {"t": 1})


@pytest.mark.parametrize("order", ["trim first", "revision first", "together"])
def test_a_trim_finds_its_chunk_before_and_after_a_revision(store, order):
    store.add({"a": ["one", "two"]})
    steps = {"trims": [trim("a", 0)], "revisions": [revision("a")]}
    if order == "together":
        published = store.publish(**steps)
        assert published.trimmed == {"t": 1}
    else:
        for name in sorted(steps, reverse=order == "trim first"):
            store.publish(**{name: steps[name]})
    store.publish(revisions=[revision("a", number=3)])
    assert texts_of(store.content()) == {"a": ["two"]}
    assert selected(store, "month", 2) == ["a"]


def test_a_newer_version_brings_all_its_chunks_whatever_was_trimmed_before_or_meanwhile(store):
    store.add({"a": ["one", "two"]})
    store.publish(trims=[trim("a", 0)])
    store.add({"a": ["one", "two"]}, trims=[trim("a", 1)], revisions=[revision("a")])
    assert texts_of(store.content()) == {"a": ["one", "two"]}
    assert selected(store, "month", 2) == []


@pytest.mark.parametrize("graph_rows", [1, 10_000])
def test_trims_and_revisions_that_land_during_a_merge_hold_after_the_swap(store, graph_rows):
    store.add({"a": ["one", "two"], "b": ["three"]}, seed=1)
    store.add({"c": ["four"]}, seed=2)
    swap = merged(store, graph_rows=graph_rows)
    store.publish(trims=[trim("a", 0)])
    store.publish(revisions=[revision("c")])
    before = store.content()
    published = store.publish(swap=swap)
    assert store.content() == before
    assert texts_of(before) == {"a": ["two"], "b": ["three"], "c": ["four"]}
    assert selected(store, "month", 2) == ["c"]
    assert [entry.live_count for entry in published.manifest.segments] == [2, 1]


def test_chunks_are_located_by_their_ids_only_while_they_are_there(store):
    store.add({"a": ["one", "two"]})
    store.add({"b": ["three"]})
    at = snapshot_of(store)
    assert locate_chunks(at, [1, 3, 4, 0, -1, 1 << 70]) == [LocatedChunk("a", "a-v1", 0), LocatedChunk("b", "b-v1", 0)]
    store.publish(trims=[trim("a", 0)], revisions=[revision("b")])
    assert locate_chunks(snapshot_of(store), [1, 2, 3]) == [LocatedChunk("a", "a-v1", 1)]
    assert locate_chunks(snapshot_of(store), [4]) == [LocatedChunk("b", "b-v1", 0)]
    assert locate_chunks(snapshot_of(store), []) == []


def test_a_selection_is_in_order_and_names_a_document_once(store):
    store.add({f"d{number:02}": ["text", "more"] for number in range(30)})
    found = select_documents(snapshot_of(store), Compare("eq", "topic", "d"), now=0.0)
    assert found.document_ids == [f"d{number:02}" for number in range(30)]


@dataclass
class Model:
    """A store, and what a dict says that it serves: per document its month, its text's version, its chunks."""

    store: Store
    dice: random.Random
    served: dict[str, tuple[int, int, dict[int, str]]] = field(default_factory=dict)
    numbers: Counter[str] = field(default_factory=Counter)
    waiting: Swap | None = None

    def put(self) -> None:
        names = self.dice.sample([*"abcdef"], 2)
        texts = {name: [f"{name} {self.dice.random()}" for _ in range(self.dice.randint(1, 4))] for name in names}
        self.numbers.update(names)
        rows = rows_of(texts)
        records = [record(name, number=self.numbers[name]) for name in texts]
        rows = replace(rows, documents=type(rows.documents).of(records))
        self.store.publish(additions=rows, vectors=unit_vectors(len(rows), seed=self.dice.randrange(1000)))
        self.served |= {name: (-1, self.numbers[name], dict(enumerate(own))) for name, own in texts.items()}

    def remove(self) -> None:
        gone = self.dice.sample([*"abcdef"], 2)
        self.store.publish(removed_document_ids=gone)
        for name in gone:
            self.served.pop(name, None)

    def revise(self) -> None:
        for name in self._one():
            self.numbers[name] += 1
            month = self.dice.randrange(5)
            self.store.publish(revisions=[revision(name, number=self.numbers[name], metadata={"month": month})])
            self.served[name] = (month, *self.served[name][1:])

    def trim(self) -> None:
        for name in self._one():
            ordinals = self.dice.sample(range(4), 2)
            month, text_version, chunks = self.served.pop(name)
            self.store.publish(trims=[trim(name, *ordinals, number=text_version)])
            if kept := {ordinal: text for ordinal, text in chunks.items() if ordinal not in ordinals}:
                self.served[name] = month, text_version, kept

    def merge(self) -> None:
        if self.served:
            self.waiting = merged(self.store, graph_rows=self.dice.choice([1, 10_000]))

    def swap(self) -> None:
        manifest = current_manifest(self.store.catalog, self.store.objects)
        if self.waiting and {entry.id for entry in manifest.segments} & {*self.waiting.inputs}:
            self.store.publish(swap=self.waiting)
        self.waiting = None

    def check(self) -> None:
        served = {name: sorted(texts) for name, texts in texts_of(self.store.content()).items()}
        assert served == {name: sorted(chunks.values()) for name, (_, _, chunks) in self.served.items()}
        for month in {month for month, _, _ in self.served.values() if month >= 0}:
            expected = sorted(name for name, (at, _, _) in self.served.items() if at == month)
            assert selected(self.store, "month", month) == expected

    def _one(self) -> list[str]:
        return self.dice.sample(sorted(self.served), min(1, len(self.served)))


def test_random_puts_removals_revisions_trims_and_merges_serve_what_a_dict_would(store):
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    model = Model(store, random.Random(seed))
    for _ in range(60):
        model.dice.choice([model.put, model.put, model.remove, model.revise, model.trim, model.merge, model.swap])()
        model.check()
