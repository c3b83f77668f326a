"""Publishing: versions follow each other whole, and only the holder of the lease makes them."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from sqlalchemy import select, update

from penstock.storage.catalog.manifests import list_manifests
from penstock.storage.catalog.sweeps import begin_sweep, guard_of_generation
from penstock.storage.catalog.tables import generations
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import Conflict, Damaged, Fenced, NotFound, Unavailable
from penstock.storage.grace import MIN_AGE_S
from penstock.storage.ids import GenerationId
from penstock.storage.publishing import leases
from penstock.storage.publishing.leases import acquire_lease, keeping_lease, release_lease, renew_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Publisher
from penstock.storage.segments.manifests import Swap
from penstock.storage.segments.rows import Rows

from ..memory_objects import MemoryObjects
from ..storage_samples import (
    DIMENSIONS,
    GENERATION,
    TENANT,
    InterceptedObjects,
    Store,
    new_store,
    open_catalog,
    rows_of,
    texts_of,
    unit_vectors,
)


@pytest.fixture
def store(tmp_path):
    return new_store(tmp_path)


def names(store: Store) -> set[str]:
    return {info.name for info in store.objects.list("tenants/")}


def test_what_is_published_is_served(store):
    published = store.add({"a": ["one", "two"], "b": ["three"]})

    assert texts_of(store.content()) == {"a": ["one", "two"], "b": ["three"]}
    assert (published.manifest.version, published.first_chunk_id, published.changed) == (1, 1, True)
    assert published.manifest.parent is None
    assert published.manifest.collection_name == "gen_1"
    assert [vector for own in store.content().values() for _, vector in own] == [
        tuple(v) for v in unit_vectors(3).tolist()
    ]


def test_a_document_that_comes_again_replaces_its_chunks_in_the_same_version(store):
    first = store.add({"a": ["one", "two"], "b": ["three"]})
    second = store.add({"a": ["uno"]}, removed_document_ids=["nobody"])

    assert texts_of(store.content()) == {"a": ["uno"], "b": ["three"]}
    assert second.manifest.parent == first.name
    assert second.first_chunk_id == 4
    assert [entry.deleted_count for entry in second.manifest.segments] == [2, 0]


def test_removed_documents_leave_and_a_segment_without_live_rows_with_them(store):
    store.add({"a": ["one", "two"]})
    store.add({"b": ["three"], "c": ["four"]})
    published = store.publish(removed_document_ids=["a", "c"])

    assert texts_of(store.content()) == {"b": ["three"]}
    assert [entry.row_count for entry in published.manifest.segments] == [2]
    store.publish(removed_document_ids=["b"])
    assert store.content() == {}
    store.add({"a": ["again"]})
    assert texts_of(store.content()) == {"a": ["again"]}


def test_tombstones_of_a_segment_add_up(store):
    store.add({name: [name] for name in "abcde"})
    for name in "ace":
        store.publish(removed_document_ids=[name])

    assert sorted(store.content()) == ["b", "d"]
    assert [entry.deleted_count for entry in store.published[-1].manifest.segments] == [3]


def test_a_document_that_lost_all_its_chunks_is_gone(store):
    store.add({"a": ["one"], "b": ["two"]})
    store.publish(additions=rows_of({"a": []}))

    assert sorted(store.content()) == ["b"]


def test_nothing_to_change_publishes_nothing_but_still_marks(store):
    marked = []
    before = store.publish(in_transaction=lambda _, published: marked.append(published.manifest.version))
    store.add({"a": ["one"]})
    objects = names(store)
    after = store.publish(
        additions=Rows.concat([]),
        removed_document_ids=["nobody"],
        in_transaction=lambda _, published: marked.append(published.manifest.version),
    )

    assert (before.name, before.changed) == (None, False)
    assert (after.name, after.changed) == (store.published[1].name, False)
    assert marked == [0, 1]
    assert names(store) == objects


def test_what_in_transaction_raises_undoes_everything(store):
    store.add({"a": ["one"]})
    before = store.content()

    def refuse(connection, published):
        assert connection.scalar(select(generations.c.version)) == published.manifest.version == 2
        raise Conflict("a document was cancelled")

    with pytest.raises(Conflict, match="cancelled"):
        store.add({"a": ["uno"], "b": ["two"]}, in_transaction=refuse)
    assert store.content() == before
    store.add({"b": ["two"]})
    assert texts_of(store.content()) == {"a": ["one"], "b": ["two"]}


@pytest.mark.parametrize("part", ["segments/", "deletes/", "manifests/"])
def test_a_publisher_whose_files_were_collected_commits_nothing(store, part, monkeypatch):
    """It stalled for hours between writing and its transaction, or the clock of the collector was ahead by as much."""
    store.add({"a": ["one", "two"], "b": ["one"]})
    before, known = store.content(), {info.name for info in store.objects.list("")}

    def collect(where):
        if where == "publish.files_written":
            begin_sweep(store.catalog, guard_of_generation(GENERATION))
            (doomed,) = [info.name for info in store.objects.list("") if info.name not in known and part in info.name]
            store.objects.delete(doomed)

    monkeypatch.setattr("penstock.storage.publishing.publisher.hit", collect)
    with pytest.raises(Fenced, match="was collected before anything named it"):
        store.add({"a": ["uno"]})
    assert store.content() == before
    monkeypatch.undo()
    store.add({"a": ["uno"]})
    assert texts_of(store.content()) == {"b": ["one"], "a": ["uno"]}


def test_a_collector_cannot_come_between_a_publishers_look_and_its_commit(tmp_path):
    """On SQLite no other transaction can; on PostgreSQL it is the generation's row that shuts it out."""
    store = Store(open_catalog(tmp_path), MemoryObjects(clock=lambda: store.now))
    store.add({"a": ["one"]})
    collected = []

    def collect() -> None:
        late = store.now + 100 * MIN_AGE_S
        collected.append(collect_generations(store.catalog, store.objects, tenant=TENANT, now=late).objects)

    rival = threading.Thread(target=collect)

    def stall(_connection, _published):
        rival.start()

    store.add({"a": ["uno"]}, in_transaction=stall)
    rival.join()

    assert collected == [0]
    assert texts_of(store.content()) == {"a": ["uno"]}


def test_thousands_of_documents_in_one_version(store):
    texts = {f"d{i}": [f"text {i}"] for i in range(1_300)}
    store.add(texts)
    store.add({name: [own[0] + "!"] for name, own in texts.items()})

    assert len(store.content()) == 1_300
    assert len(store.published[-1].manifest.segments) == 1


@pytest.mark.parametrize(
    "vectors",
    [
        None,
        unit_vectors(2),
        unit_vectors(3, dimensions=DIMENSIONS + 1),
        unit_vectors(3).astype("f8"),
        np.full((3, DIMENSIONS), np.nan, np.float32),
        np.array([[np.inf] * DIMENSIONS, [-np.inf] * DIMENSIONS, [0] * DIMENSIONS], np.float32),
    ],
)
def test_vectors_that_do_not_fit_are_refused_before_anything_is_written(store, vectors):
    with pytest.raises(Damaged):
        store.publish(additions=rows_of({"a": ["1", "2", "3"]}), vectors=vectors)

    assert names(store) == set()


def test_an_unknown_generation_is_not_found(store):
    store.publish()
    publisher = Publisher(store.catalog, store.objects)

    for generation_id, shard in ((GenerationId("gen_9"), 0), (GENERATION, 1)):
        with pytest.raises(NotFound):
            publisher.publish(generation_id, epoch=store.epoch, shard=shard)


def test_only_one_owner_holds_a_lease_and_each_has_an_epoch_of_its_own(store):
    def take(owner: str, now: float) -> int | None:
        return acquire_lease(store.catalog, shard=0, owner=owner, ttl_s=10, now=now)

    assert take("a", 0) == 1
    assert take("b", 9) is None
    assert take("a", 5) == 2
    assert take("b", 14) is None
    assert take("b", 15) == 3
    assert not renew_lease(store.catalog, shard=0, owner="a", epoch=2, ttl_s=10, now=16)
    assert not release_lease(store.catalog, shard=0, owner="a", epoch=2)
    assert renew_lease(store.catalog, shard=0, owner="b", epoch=3, ttl_s=10, now=20)
    assert take("a", 29) is None
    assert release_lease(store.catalog, shard=0, owner="b", epoch=3)
    assert take("a", 21) == 4
    assert acquire_lease(store.catalog, shard=1, owner="b", ttl_s=10, now=0) == 1


@pytest.mark.parametrize("error", [Unavailable("busy"), Damaged("no database"), RuntimeError("whatever")], ids=repr)
def test_a_lease_is_kept_on_after_a_renewal_that_failed_in_whatever_way(store, monkeypatch, error):
    epoch = acquire_lease(store.catalog, shard=0, owner="a", ttl_s=60, now=store.now)
    turns, renewed = [], threading.Event()

    def renew(*args, **options):
        turns.append(options)
        if len(turns) < 3:
            raise error
        assert renew_lease(*args, **options)
        renewed.set()

    monkeypatch.setattr(leases, "renew_lease", renew)
    later = store.now + 1_000
    with keeping_lease(store.catalog, shard=0, owner="a", epoch=epoch, ttl_s=0.03, clock=lambda: later):
        assert renewed.wait(60), "the renewals ended with the first that failed"
        assert acquire_lease(store.catalog, shard=0, owner="b", ttl_s=10, now=later) is None
    assert acquire_lease(store.catalog, shard=0, owner="b", ttl_s=10, now=later) is not None, "it was given back"


def test_a_lease_that_cannot_be_given_back_hides_neither_an_error_nor_a_success(store, monkeypatch):
    def release(*_, **__):
        raise Unavailable("the catalog does not answer")

    monkeypatch.setattr(leases, "release_lease", release)
    kept = {"shard": 0, "owner": "a", "epoch": 1, "ttl_s": 60.0, "clock": store.clock}
    with keeping_lease(store.catalog, **kept):
        pass
    with pytest.raises(Conflict, match="what went wrong"), keeping_lease(store.catalog, **kept):
        raise Conflict("what went wrong")


def test_a_writer_whose_lease_was_taken_or_given_back_is_fenced_before_it_writes(store):
    store.add({"a": ["one"]})
    before = names(store)
    publisher = Publisher(store.catalog, store.objects)

    def publish(epoch):
        publisher.publish(GENERATION, epoch=epoch, shard=0, removed_document_ids=["a"])

    rival = acquire_lease(store.catalog, shard=0, owner="rival", ttl_s=60, now=store.now + 61)
    with pytest.raises(Fenced):
        publish(store.epoch)
    release_lease(store.catalog, shard=0, owner="rival", epoch=rival)
    for epoch in (store.epoch, rival):
        with pytest.raises(Fenced):
            publish(epoch)

    assert names(store) == before
    assert texts_of(store.content()) == {"a": ["one"]}


@pytest.mark.parametrize("stolen_at", ["put", "local_path"])
def test_a_writer_that_sleeps_past_its_lease_changes_nothing(store, stolen_at):
    """The rival takes over while the first writer is between two operations, and publishes."""
    store.add({"a": ["one"], "b": ["two"]})
    rival = Store(store.catalog, store.objects, now=store.now + 1_000, owner="rival")
    slept = []

    def sleep(_number, method, *_args):
        if method == stolen_at and not slept:
            slept.append(rival.add({"a": ["of the rival"]}))

    zombie = Store(store.catalog, InterceptedObjects(store.objects, sleep), now=store.now, epoch=store.epoch)
    marked = []
    with pytest.raises(Fenced):
        zombie.add({"a": ["of the zombie"]}, in_transaction=lambda *_: marked.append(1))

    assert slept
    assert marked == []
    assert texts_of(store.content()) == {"a": ["of the rival"], "b": ["two"]}
    with pytest.raises(Fenced):
        zombie.publish(removed_document_ids=["b"])


def during_the_next_put(store: Store, happens) -> Store:
    """The same writer, with something happening while it writes its first file."""
    happened = []

    def before(_number, method, *_args):
        if method == "put" and not happened:
            happened.append(1)
            happens()

    return Store(store.catalog, InterceptedObjects(store.objects, before), now=store.now, epoch=store.epoch)


def test_a_lease_that_is_lost_while_files_are_written_fences_even_if_nobody_published(store):
    store.add({"a": ["one"]})

    def lose():
        assert acquire_lease(store.catalog, shard=0, owner="rival", ttl_s=60, now=store.now + 61)

    with pytest.raises(Fenced):
        during_the_next_put(store, lose).add({"b": ["two"]})
    assert texts_of(store.content()) == {"a": ["one"]}


def test_a_pointer_that_moved_under_the_same_epoch_fences_too(store):
    store.add({"a": ["one"]})

    def move():
        with store.catalog.write() as connection:
            connection.execute(update(generations).values(manifest="tenants/acme/elsewhere"))

    with pytest.raises(Fenced):
        during_the_next_put(store, move).add({"b": ["two"]})


def test_a_manifest_that_the_catalog_contradicts_is_not_built_upon(store):
    store.add({"a": ["one"]})
    with store.catalog.write() as connection:
        connection.execute(update(generations).values(next_chunk_id=1))

    with pytest.raises(Damaged, match="next_chunk_id"):
        store.add({"b": ["two"]})


def test_readers_of_one_version_are_not_touched_by_the_next(store):
    store.add({"a": ["one"], "b": ["two"]})
    before = {info.name: store.objects.get(info.name) for info in store.objects.list("tenants/")}
    store.add({"a": ["uno"]})

    assert {name: store.objects.get(name) for name in before} == before


def test_documents_are_found_in_segments_whose_rows_were_merged_and_deleted(store):
    store.add({"a": ["a1", "a2"], "b": ["b1"]})
    store.add({"c": ["c1"], "a": ["a3"]})
    merged = build_merge(store.objects, store.published[-1].manifest, store.published[-1].manifest.segments)
    store.publish(swap=Swap([each.id for each in store.published[-1].manifest.segments], merged))
    store.publish(removed_document_ids=["a", "never there"])

    assert texts_of(store.content()) == {"b": ["b1"], "c": ["c1"]}


def test_rows_of_a_document_need_not_stand_together(store):
    rows = rows_of({"a": ["a1", "a2"], "b": ["b1", "b2"]}).take(np.array([2, 0, 3, 1]))
    scattered = replace(rows, document=np.array([1, 0, 1, 0], "<u4"))
    store.publish(additions=scattered, vectors=unit_vectors(4))
    store.publish(removed_document_ids=["a"])

    assert texts_of(store.content()) == {"b": ["b1", "b2"]}


def test_every_version_enters_the_history_with_the_transaction_that_publishes_it(store):
    def history():
        with store.catalog.read() as connection:
            return [(one.version, one.name) for one in list_manifests(connection, GENERATION, limit=10)]

    def refuse(connection, published):
        raise RuntimeError("the caller changed its mind")

    first = store.add({"a": ["one"]})
    with pytest.raises(RuntimeError):
        store.add({"b": ["two"]}, in_transaction=refuse)
    assert history() == [(1, first.name)]
    second = store.add({"b": ["two"]})
    store.publish(removed_document_ids=["unknown"])  # nothing to publish: no version
    assert history() == [(2, second.name), (1, first.name)]
