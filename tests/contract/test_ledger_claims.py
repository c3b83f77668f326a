"""A batch has one holder at a time, and whoever lost it can record nothing."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.tables import batches
from penstock.storage.errors import Conflict
from penstock.storage.ids import BatchId
from penstock.storage.ledger import claims

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, Line, document, new_line, rows


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def test_a_claim_carries_what_the_work_needs(line):
    submitted = document(
        "a", "hello", title="T", metadata={"k": [1]}, event_time=5.0, expires_at=6.0, media_type="text/x"
    )
    line.accept([submitted])
    claim = line.claimed("chunk")

    assert (claim.stage, claim.attempt, claim.part, claim.suspect) == ("chunk", 1, 0, False)
    assert (claim.tenant_id, claim.shard) == ("default", 0)
    assert claim.generation == line.collection.generation
    (version,) = claim.versions
    assert (version.source, version.filename, version.media_type, version.title) == ("a", "a.txt", "text/x", "T")
    assert (version.metadata, version.event_time, version.expires_at) == ({"k": [1]}, 5.0, 6.0)
    assert (version.number, version.size_bytes, version.created_at) == (1, 5, line.now)
    assert line.objects.get_range(version.pack, offset=version.pack_offset, size_bytes=5) == b"hello"


def test_of_many_rivals_one_gets_the_batch(line):
    line.submit("a")
    line.form()
    (batch,) = line.send("chunk")
    with ThreadPoolExecutor(8) as threads:
        claims = list(threads.map(lambda rival: line.claim(batch, owner=f"w{rival}"), range(8)))
    assert sum(claim is not None for claim in claims) == 1


def test_a_batch_that_does_not_exist_or_is_done_is_not_claimed(line):
    assert line.claim(BatchId("batch_0")) is None
    line.submit("a")
    claim = line.claimed("chunk")
    line.finish_chunking(claim)
    assert line.claim(claim.batch_id) is None


def test_a_document_alone_that_was_tried_before_is_taken_only_by_an_empty_process(line):
    line.submit("a")
    line.form()
    (batch,) = line.send("chunk")
    first = line.claim(batch, in_company=True)
    assert not first.suspect
    line.now += LEASE_S + 1

    with pytest.raises(ledger.MustBeAlone):
        line.claim(batch, in_company=True)
    second = line.claim(batch)
    assert (second.attempt, second.suspect) == (2, True)  # being refused did not count


def test_documents_tried_together_go_on_in_company(line):
    line.submit("a", "b")
    line.form()
    (batch,) = line.send("chunk")
    line.claim(batch)
    line.now += LEASE_S + 1
    assert not line.claim(batch, in_company=True).suspect


def test_a_lapsed_claim_is_taken_over_and_its_old_holder_can_record_nothing(line):
    line.submit("a")
    old = line.claimed("chunk")
    line.now += LEASE_S + 1
    new = line.claim(old.batch_id, owner="other")
    assert new is not None
    assert new.attempt == 2
    before = rows(line.catalog)

    assert ledger.renew(line.catalog, old, lease_s=LEASE_S, now=line.now) is False
    for record in (
        lambda: line.finish_chunking(old),
        lambda: line.retry(old),
        lambda: line.finish_embedding(old),
    ):
        with pytest.raises(Conflict, match=f"batch {old.batch_id} is no longer held by worker"):
            record()
    assert rows(line.catalog) == before
    line.finish_chunking(new)


def test_the_same_worker_that_takes_its_batch_again_has_lost_its_first_attempt(line):
    line.submit("a")
    old = line.claimed("chunk")
    line.now += LEASE_S + 1
    new = line.claim(old.batch_id)
    with pytest.raises(Conflict):
        line.finish_chunking(old)
    line.finish_chunking(new)


def test_a_renewed_claim_does_not_lapse(line):
    line.submit("a")
    claim = line.claimed("chunk")
    for _ in range(3):
        line.now += LEASE_S - 1
        assert ledger.renew(line.catalog, claim, lease_s=LEASE_S, now=line.now)
        assert line.reconcile().released == 0
        assert line.claim(claim.batch_id, owner="other") is None


def test_late_work_is_taken_when_nobody_else_began(line):
    line.submit("a")
    claim = line.claimed("chunk")
    line.now += 10 * LEASE_S
    line.finish_chunking(claim)
    assert line.states() == {"a": ["embedding"]}


def test_at_the_cap_only_the_reconciler_touches_a_lapsed_batch(line):
    line.submit("a")
    line.claimed("chunk")
    for _ in range(MAX_ATTEMPTS - 1):
        line.now += LEASE_S + 1
        line.reconcile()
        (batch,) = line.send("chunk")
        assert line.claim(batch) is not None
    line.now += LEASE_S + 1
    assert line.claim(batch) is None


def test_a_batch_whose_documents_were_all_cancelled_is_not_worked_on(line):
    job_id = line.submit("a", "b").job_id
    line.form()
    (batch,) = line.send("chunk")
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    assert line.claim(batch) is None
    assert line.batch_states("chunk") == ["done"]


def test_what_is_cancelled_just_after_the_claim_ends_its_batch_and_brings_no_work(line, monkeypatch):
    """What a claim brings is read after its commit, so that nobody waits for that."""
    job_id = line.submit("a").job_id
    line.form()
    (batch,) = line.send("chunk")
    read = claims.read_versions

    def cancelled(*arguments):
        with ThreadPoolExecutor(1) as other:
            other.submit(cancel_job, line.catalog, tenant=line.tenant, job_id=job_id, now=line.now).result()
        with line.catalog.read() as connection:
            return read(connection, *arguments[1:])

    monkeypatch.setattr(claims, "read_versions", cancelled)
    assert line.claim(batch) is None
    assert line.batch_states("chunk") == ["done"]


def test_a_batch_whose_collection_is_deleted_just_after_the_claim_brings_no_work(line, monkeypatch):
    line.submit("a")
    line.form()
    (batch,) = line.send("chunk")

    def deleted(*_arguments):
        with ThreadPoolExecutor(1) as other:
            other.submit(delete_collection, line.catalog, tenant=line.tenant, name="papers").result()
        return []

    monkeypatch.setattr(claims, "read_versions", deleted)
    assert line.claim(batch) is None


def test_a_claim_leaves_cancelled_documents_out(line):
    job_id = line.submit("a").job_id
    line.submit("b")
    line.form()
    (batch,) = line.send("chunk")
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    claim = line.claim(batch)
    assert [version.source for version in claim.versions] == ["b"]


def test_a_holder_learns_of_a_cancellation_at_the_next_renewal_or_at_the_end(line):
    job_id = line.submit("a").job_id
    claim = line.claimed("chunk")
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    assert not ledger.renew(line.catalog, claim, lease_s=LEASE_S, now=line.now)
    with pytest.raises(Conflict):
        line.finish_chunking(claim)
    assert line.batch_states("embed") == []


def test_the_attempt_is_counted_before_the_work_begins(line):
    line.submit("a")
    claim = line.claimed("chunk")
    with line.catalog.read() as connection:
        row = connection.execute(sa.select(batches).where(batches.c.id == claim.batch_id)).one()
    assert (row.attempts, row.state, row.owner, row.lease_until) == (1, "running", "worker", line.now + LEASE_S)
