"""Idempotency keys: a submission under one is done once, however often it arrives. And what lists tell of documents."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.documents import get_document, list_documents
from penstock.storage.catalog.jobs import cancel_job, list_jobs
from penstock.storage.catalog.sources import read_arrival
from penstock.storage.catalog.tables import idempotency_keys
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import Conflict, KeyReused
from penstock.storage.ids import TenantId
from penstock.storage.intake.idempotency import KEEP_S, forget_keys

from ..ledger_line import Line, document, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def keys(line: Line) -> int:
    with line.catalog.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(idempotency_keys)) or 0


def jobs_of(line: Line) -> int:
    return len(list_jobs(line.catalog, tenant=line.tenant, limit=100))


def test_the_same_submission_under_the_same_key_is_told_the_same_and_does_nothing(line):
    line.submit("b", text="older")
    first = line.accept([document("a", "one"), document("b", "two")], idempotency_key="k")
    again = line.accept([document("a", "one"), document("b", "two")], idempotency_key="k")

    assert (first.replayed, again.replayed) == (False, True)
    assert again.to_answer() == first.to_answer()
    assert (again.accepted, again.replaced, again.unchanged) == (2, 1, 0)
    assert jobs_of(line) == 2


def test_a_late_repetition_brings_nothing_back_that_was_replaced_or_deleted_since(line):
    line.accept([document("a", "old"), document("b", "old")], idempotency_key="k")
    line.run()
    line.submit("a", text="new")
    line.remove("b")
    line.run()
    before = line.states()

    line.accept([document("a", "old"), document("b", "old")], idempotency_key="k")

    assert line.states() == before
    assert line.accept([document("b", "old")]).accepted == 1, "without the key it would come back"


@pytest.mark.parametrize(
    "other",
    [
        [document("a", "two")],
        [document("b", "one")],
        [document("a", "one", metadata={"n": 1})],
        [document("a", "one"), document("b", "one")],
    ],
    ids=["text", "source", "metadata", "more"],
)
def test_another_submission_under_the_same_key_is_refused_and_changes_nothing(line, other):
    line.accept([document("a", "one")], idempotency_key="k")
    before = line.states()

    with pytest.raises(KeyReused, match="new key"):
        line.accept(other, idempotency_key="k")

    assert line.states() == before
    assert line.accept(other, idempotency_key="other").accepted >= 1


def test_a_key_belongs_to_one_tenant_one_collection_and_one_job(line):
    first = line.accept([document("a")], idempotency_key="k")
    elsewhere = new_line(line.catalog, name="others")
    create_tenant(line.catalog, "acme", now=1.0)
    stranger = new_line(line.catalog, tenant=TenantId("acme"))

    with pytest.raises(KeyReused):
        elsewhere.accept([document("a")], idempotency_key="k")
    with pytest.raises(KeyReused):
        line.accept([document("a")], idempotency_key="k", job_id=first.job_id)
    assert not stranger.accept([document("a")], idempotency_key="k").replayed


def test_a_submission_that_was_refused_leaves_its_key_free(line):
    job = line.submit("a").job_id
    cancel_job(line.catalog, tenant=line.tenant, job_id=job, now=2.0)
    with pytest.raises(Conflict):
        line.accept([document("b")], idempotency_key="k", job_id=job)

    assert keys(line) == 0
    assert not line.accept([document("b")], idempotency_key="k").replayed


def test_many_at_once_under_one_key_make_one_job(line):
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(line.accept, [document("a", "one")], idempotency_key="k") for _ in range(8)]
        answers = [one.result() for one in done]

    assert len({one.job_id for one in answers}) == 1
    assert sorted(one.replayed for one in answers) == [False] + [True] * 7
    assert line.states() == {"a": ["queued"]}


def test_keys_are_forgotten_after_a_while_and_with_their_collection(line):
    for number in range(3):
        line.accept([document("a")], idempotency_key=f"k{number}")
        line.now += KEEP_S / 2

    assert forget_keys(line.catalog, now=line.now) == 1
    assert not line.accept([document("a")], idempotency_key="k0").replayed
    assert line.accept([document("a")], idempotency_key="k2").replayed
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    assert keys(line) == 0


def test_a_document_tells_which_version_is_searchable_since_when(line):
    line.submit("a", text="one")
    asked = {"tenant": line.tenant, "collection_id": line.collection.id, "document_id": line.document_id("a")}
    new = get_document(line.catalog, **asked)
    assert (new.searchable_number, new.searchable_at) == (None, None)

    line.chunk(), line.embed(), line.index()
    first_at = line.now
    line.now += 5
    line.submit("a", text="two")

    info = get_document(line.catalog, **asked)
    assert (info.number, info.state, info.searchable_number, info.searchable_at) == (2, "queued", 1, first_at)
    line.chunk(), line.embed(), line.index()
    info = get_document(line.catalog, **asked)
    assert (info.searchable_number, info.searchable_at, info.indexed_version) == (2, line.now, 2)
    line.remove("a")
    line.index()
    gone = get_document(line.catalog, **asked)
    assert (gone.searchable_number, gone.searchable_at) == (None, None)


def test_what_documents_wait_for_ends_with_the_version_that_holds_them_all(line):
    line.submit("a")
    line.chunk(), line.embed(), line.index()
    line.submit("b", "c")
    line.chunk(), line.embed()
    asked = {"collection_id": line.collection.id, "sources": ["a", "b", "c", "unknown"]}

    assert (
        sorted(read_arrival(line.catalog, **asked).waiting),
        read_arrival(line.catalog, **asked).indexed_version,
    ) == (
        ["b", "c"],
        1,
    )
    line.index()
    arrival = read_arrival(line.catalog, **asked)
    assert (arrival.waiting, arrival.indexed_version) == ([], 2)


def test_documents_are_listed_by_what_their_sources_begin_with_to_the_letter(line):
    line.submit("a/x", "a/y", "A/x", "a%b", "a_b", "ä/x", "ab")
    asked = {"tenant": line.tenant, "collection_id": line.collection.id, "limit": 100}

    found = {
        prefix: [one.source for one in list_documents(line.catalog, prefix=prefix, **asked)]
        for prefix in ("a/", "A", "a%", "a_", "ä", "b")
    }

    assert {prefix: sorted(sources) for prefix, sources in found.items()} == {
        "a/": ["a/x", "a/y"],
        "A": ["A/x"],
        "a%": ["a%b"],
        "a_": ["a_b"],
        "ä": ["ä/x"],
        "b": [],
    }
