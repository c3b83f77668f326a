"""Searches that are recorded, and judgements: kept per collection, bounded, and gone with what they belong to."""

import threading

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import create_collection, delete_collection
from penstock.storage.catalog.judgements import (
    Judgement,
    clear_judgements,
    judged_queries,
    list_judgements,
    load_judgements,
)
from penstock.storage.catalog.recorded_queries import (
    AskedQuery,
    forget_recorded,
    forget_recorded_before,
    read_recorded,
    record_queries,
)
from penstock.storage.catalog.recorder import MOST_OF_ONE, QueryRecorder
from penstock.storage.catalog.tables import recorded_queries, tenants
from penstock.storage.catalog.tenants import change_tenant, create_tenant
from penstock.storage.errors import LimitReached, NotFound
from penstock.storage.ids import CollectionId, TenantId

TENANT = TenantId("default")


def make(catalog, name: str = "docs", tenant: TenantId = TENANT) -> CollectionId:
    options = {"model": "hash", "dimensions": 384, "metric": "cosine", "chunking": {}, "shards": 1, "now": 1.0}
    return create_collection(catalog, tenant=tenant, name=name, **options).id


def record(catalog, collection: CollectionId, *texts: str | None, keep: int = 10, now: float = 100.0) -> None:
    record_queries(catalog, {(TENANT, collection): [AskedQuery(text) for text in texts]}, keep=keep, now=now)


def texts(catalog, collection: CollectionId) -> list[str]:
    return [one.text for one in read_recorded(catalog, collection, limit=100).queries]


def test_a_search_is_kept_once_with_how_often_it_was_asked(catalog):
    collection = make(catalog)
    record(catalog, collection, "pears", "pears", "plums", None, now=100.0)
    record(catalog, collection, "pears", None, None, now=200.0)
    found = read_recorded(catalog, collection, limit=10)
    assert [(one.text, one.times, one.first_at, one.last_at) for one in found.queries] == [
        ("pears", 3, 100.0, 200.0),
        ("plums", 1, 100.0, 100.0),
    ]
    assert found.by_vector == 3


def test_a_text_with_another_filter_is_another_search_and_filters_come_back_as_they_were(catalog):
    collection = make(catalog)
    filters = [None, "lang=en", {"type": "eq", "key": "ü\0", "value": [1, True, 2.5]}, ["a=1", {"type": "exists"}]]
    record_queries(catalog, {(TENANT, collection): [AskedQuery("q", one) for one in filters]}, keep=10, now=1.0)
    found = [one.filter for one in read_recorded(catalog, collection, limit=10).queries]
    assert sorted(found, key=str) == sorted(filters, key=str)


def test_only_the_newest_of_each_collection_are_kept(catalog):
    one, other = make(catalog, "one"), make(catalog, "other")
    for now in range(5):
        record(catalog, one, f"one {now}", None, keep=3, now=float(now))
        record(catalog, other, f"other {now}", keep=3, now=float(now))
    assert texts(catalog, one) == ["one 4", "one 3", "one 2"]
    assert texts(catalog, other) == ["other 4", "other 3", "other 2"]
    assert read_recorded(catalog, one, limit=2).by_vector == 5


def test_what_was_recorded_is_forgotten_by_request_by_age_and_with_its_collection(catalog):
    one, other = make(catalog, "one"), make(catalog, "other")
    record(catalog, one, "a", "b", None, now=10.0)
    record(catalog, other, "c", now=20.0)
    record(catalog, other, "d", now=30.0)
    assert forget_recorded_before(catalog, 25.0) == 4
    assert forget_recorded_before(catalog, 25.0) == 0
    assert (texts(catalog, one), texts(catalog, other)) == ([], ["d"])
    assert forget_recorded(catalog, other) == 1
    record(catalog, one, "a")
    delete_collection(catalog, tenant=TENANT, name="one")
    with catalog.read() as connection:
        assert connection.execute(sa.select(recorded_queries)).all() == []


def test_what_comes_for_a_collection_that_is_gone_is_dropped_and_the_rest_is_kept(catalog):
    gone, here = make(catalog, "gone"), make(catalog, "here")
    delete_collection(catalog, tenant=TENANT, name="gone")
    asked = {(TENANT, gone): [AskedQuery("a")], (TENANT, here): [AskedQuery("b")]}
    record_queries(catalog, asked, keep=10, now=1.0)
    assert texts(catalog, here) == ["b"]


def test_a_tenant_that_wants_none_recorded_has_none_and_loses_those_it_had(catalog):
    rival = create_tenant(catalog, "rival", now=1.0)
    mine, theirs = make(catalog), make(catalog, tenant=rival)
    both = {(TENANT, mine): [AskedQuery("a")], (rival, theirs): [AskedQuery("b")]}
    record_queries(catalog, both, keep=10, now=1.0)
    change_tenant(catalog, TENANT, record_queries=False)
    record_queries(catalog, both, keep=10, now=2.0)
    assert (texts(catalog, mine), texts(catalog, theirs)) == ([], ["b"])
    change_tenant(catalog, TENANT, record_queries=None)
    record_queries(catalog, both, keep=10, now=3.0)
    assert texts(catalog, mine) == ["a"]


def test_who_records_waits_for_nobody_and_who_forbids_it_finds_nothing_after(postgres_catalog):
    """PostgreSQL only: on SQLite one transaction writes at a time."""
    collection = make(postgres_catalog)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with postgres_catalog.write() as connection:
            connection.execute(sa.update(tenants).where(tenants.c.id == TENANT).values(record_queries=False))
            held.set()
            assert done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(30)
        record(postgres_catalog, collection, "a")  # would time out if it waited
    finally:
        done.set()
        holder.join()
    record(postgres_catalog, collection, "b")
    assert texts(postgres_catalog, collection) == []


def test_a_recorder_keeps_a_few_short_searches_and_writes_them_when_it_closes(catalog):
    collection = make(catalog)
    recorder = QueryRecorder(catalog, keep=1_000, every_s=3600, clock=lambda: 5.0)
    for number in range(2 * MOST_OF_ONE):
        recorder.note(TENANT, collection, text=f"query {number}", filter={"type": "exists", "key": "a"})
    recorder.note(TENANT, make(catalog, "other"), text=None, filter={"ignored": object()})
    for unfit in ("x" * 2_001, "a\0b", "\ud800"):
        recorder.note(TENANT, make(catalog, f"c{len(unfit)}"), text=unfit)
    recorder.note(TENANT, make(catalog, "long"), text="q", filter="k=" + "x" * 2_000)
    assert texts(catalog, collection) == []
    recorder.close()
    assert len(texts(catalog, collection)) == MOST_OF_ONE
    with catalog.read() as connection:
        assert len(connection.execute(sa.select(recorded_queries)).all()) == MOST_OF_ONE + 1
    recorder.note(TENANT, collection, text="too late")
    recorder.flush()
    assert len(texts(catalog, collection)) == MOST_OF_ONE


def test_a_recorder_that_keeps_nothing_starts_no_thread(catalog):
    recorder = QueryRecorder(catalog, keep=0)
    before = threading.active_count()
    recorder.note(TENANT, make(catalog), text="a")
    assert threading.active_count() == before
    recorder.close()


def test_a_recorder_survives_a_catalog_that_does_not_answer(catalog, monkeypatch, caplog):
    collection = make(catalog)
    recorder = QueryRecorder(catalog, keep=10, every_s=3600)
    monkeypatch.setattr("penstock.storage.catalog.recorder.record_queries", lambda *_, **__: 1 / 0)
    recorder.note(TENANT, collection, text="a secret")
    recorder.flush()
    monkeypatch.undo()
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text
    recorder.note(TENANT, collection, text="b")
    recorder.close()
    assert texts(catalog, collection) == ["b"]


def load(catalog, collection: CollectionId, *given: Judgement, replace: bool = False):
    return load_judgements(catalog, given, tenant=TENANT, collection_id=collection, now=1.0, replace=replace)


def test_the_last_judgement_of_a_question_and_a_document_counts(catalog):
    collection = make(catalog)
    load(catalog, collection, Judgement("q", 1, source="a"), Judgement("q", 2, source="a"))
    loaded = load(catalog, collection, Judgement("q", 3, source="b"), Judgement("r", 0, document_id="doc_1"))
    assert (loaded.judgements, loaded.queries, list(loaded.unknown)) == (3, 2, [0, 1])
    load(catalog, collection, Judgement("q", 0, source="b"))
    found = judged_queries(catalog, collection)
    assert {query: {(one.source, one.document_id, one.grade) for one in own} for query, own in found.items()} == {
        "q": {("a", None, 2), ("b", None, 0)},
        "r": {(None, "doc_1", 0)},
    }
    assert clear_judgements(catalog, collection) == 3


def test_judgements_are_replaced_and_paged_and_go_with_their_collection(catalog):
    collection = make(catalog)
    load(catalog, collection, Judgement("old", 1, source="a"))
    load(catalog, collection, *(Judgement(f"q{n}", 1, source="a") for n in range(5)), replace=True)
    first = list_judgements(catalog, collection, limit=3)
    rest = list_judgements(catalog, collection, after=first[-1][0])
    assert sorted(one.query for _, one in first + rest) == [f"q{n}" for n in range(5)]
    delete_collection(catalog, tenant=TENANT, name="docs")
    assert judged_queries(catalog, collection) == {}


def test_too_many_judgements_change_nothing(catalog, monkeypatch):
    monkeypatch.setattr("penstock.storage.catalog.judgements.MAX_JUDGEMENTS", 2)
    collection = make(catalog)
    load(catalog, collection, Judgement("q", 1, source="a"))
    with pytest.raises(LimitReached, match="3 judgements, and 2 may be kept"):
        load(catalog, collection, Judgement("r", 1, source="a"), Judgement("s", 1, source="a"))
    assert list(judged_queries(catalog, collection)) == ["q"]


def test_judgements_of_another_tenants_collection_are_refused(catalog):
    rival = create_tenant(catalog, "rival", now=1.0)
    with pytest.raises(NotFound):
        load(catalog, make(catalog, tenant=rival), Judgement("q", 1, source="a"))
