"""One bad document never fails its batch: it ends up alone, and dead, with its reason; the others are indexed."""

from dataclasses import replace

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.documents import list_documents
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import batches
from penstock.storage.errors import Conflict

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def work(line: Line, stage: str, *, poison: str, dies: bool = True) -> None:
    """Let workers take the stage's batches; those that hold ``poison`` kill their worker, or fail with an error."""
    if stage == "index":
        groups = line.claim_index(owner=f"writer at {line.now}")
        if not groups:
            return
        if any(version.source == poison for group in groups for version in group.versions):
            for group in groups if not dies else ():
                line.retry(group, error="it broke", code="bad_document")
            return
        line.publish(groups)
        return
    for batch_id in line.send(stage):
        claim = line.claim(batch_id)
        if claim is None:
            continue
        if any(version.source == poison for version in claim.versions):
            if not dies:
                line.retry(claim, error="it broke", code="bad_document")
        elif stage == "chunk":
            line.finish_chunking(claim)
        else:
            line.finish_embedding(claim)


def run_with(line: Line, *, poison: str, in_stage: str, dies: bool) -> None:
    for _ in range(60):
        line.form()
        for stage in ("chunk", "embed", "index"):
            work(line, stage, poison=poison if stage == in_stage else "", dies=dies)
        line.now += LEASE_S + 1
        line.reconcile()
        if not line.unfinished():
            return
    raise AssertionError(f"not over: {line.states()}")


@pytest.mark.parametrize("dies", [True, False], ids=["kills its worker", "raises"])
@pytest.mark.parametrize("stage", ["chunk", "embed", "index"])
def test_the_culprit_dies_alone_and_the_rest_of_its_batch_is_indexed(line, stage, dies):
    accepted = line.submit("a", "bad", "c")
    run_with(line, poison="bad", in_stage=stage, dies=dies)

    assert line.states() == {"a": ["indexed"], "bad": ["failed"], "c": ["indexed"]}
    dead = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, state="failed", limit=10)
    doing = {"chunk": "parsing", "embed": "embedding", "index": "publishing"}[stage]
    (bad,) = dead
    assert bad.stage == stage
    if dies:
        assert bad.error_code == "worker_lost"
        assert bad.error.startswith(f"the worker died {MAX_ATTEMPTS} times while {doing} this document")
    else:
        assert bad.error_code == "bad_document"
        assert bad.error == f"gave up after {MAX_ATTEMPTS} attempts at {doing} this document: it broke"
    job = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    assert (job.state, job.documents) == ("done", {"failed": 1, "indexed": 2})


def test_a_batch_taken_apart_starts_again_with_one_document_each_and_fresh_attempts(line):
    line.submit("a", "b", "c")
    line.form()
    for _ in range(MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        line.claim(batch)
        line.now += LEASE_S + 1
        found = line.reconcile()
    assert (found.apart, found.dead, found.released) == (1, 0, 0)

    with line.catalog.read() as connection:
        made = connection.execute(sa.select(batches).where(batches.c.state == "ready")).all()
    assert [(row.stage, row.document_count, row.attempts) for row in made] == [("chunk", 1, 0)] * 3
    sent = line.send("chunk")
    for batch in sent:
        with pytest.raises(ledger.MustBeAlone):
            line.claim(batch, in_company=True)
    claims = [line.claim(batch) for batch in sent]
    assert all(claim.suspect for claim in claims)
    assert sorted(claim.versions[0].source for claim in claims) == ["a", "b", "c"]
    for claim in claims:
        line.finish_chunking(claim)
    assert all(line.claim(batch).suspect for batch in line.send("embed"))


def test_a_part_at_the_cap_gives_back_only_its_own_documents(line):
    line.submit("a", "b", "c", "d")
    claim = line.claimed("chunk")
    a, b, c, d = claim.versions
    (first,) = line.cut(replace(claim, versions=(a, b)))
    (second,) = line.cut(replace(claim, versions=(b, c)))  # "b" lies in both parts
    (third,) = line.cut(replace(claim, versions=(d,)))
    parts = [replace(part, group_id=first.group_id, part=number) for number, part in enumerate((first, second, third))]
    line.finish_chunking(claim, parts=parts)
    line.send("embed")
    line.finish_embedding(line.claim(first.batch_id))
    line.finish_embedding(line.claim(third.batch_id))
    for _ in range(MAX_ATTEMPTS):
        line.retry(line.claim(second.batch_id))

    assert line.states() == {"a": ["indexing"], "b": ["chunking"], "c": ["chunking"], "d": ["indexing"]}
    (group,) = line.claim_index()
    assert [version.source for version in group.versions] == ["a", "d"]
    assert len(group.parts) == 2
    line.publish([group])
    line.run()
    assert list(line.states().values()) == [["indexed"]] * 4


def test_an_attempt_handed_back_uncounted_is_no_ones_fault(line):
    line.submit("a")
    line.form()
    for _ in range(3 * MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        claim = line.claim(batch)
        assert claim.attempt == 1
        line.retry(claim, counted=False)
    assert line.states() == {"a": ["chunking"]}


def test_an_earlier_error_is_told_when_the_worker_dies_afterwards(line):
    line.submit("a")
    line.form()
    for attempt in range(MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        claim = line.claim(batch)
        if attempt == 0:
            line.retry(claim, error="out of memory")
        line.now += LEASE_S + 1
        line.reconcile()
    ((error,),) = line.version_rows("error")
    assert error.startswith("the worker died at the last of 3 attempts (an earlier one ended with: out of memory)")


def test_a_batch_at_the_cap_without_a_document_left_is_just_closed(line):
    job_id = line.submit("a", "b").job_id
    line.form()
    for _ in range(MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        claim = line.claim(batch)
        line.now += LEASE_S + 1
        if claim.attempt < MAX_ATTEMPTS:
            line.reconcile()
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    assert line.reconcile() == ledger.Reconciled(0, 0, 0, 0, 0, 0)
    assert line.states() == {"a": ["cancelled"], "b": ["cancelled"]}


def test_a_claim_that_was_lost_cannot_be_handed_back(line):
    line.submit("a")
    claim = line.claimed("chunk")
    line.retry(claim)
    with pytest.raises(Conflict):
        line.retry(claim)
