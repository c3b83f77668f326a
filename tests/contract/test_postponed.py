"""What jobs are told of work that waits by no fault of theirs: on both databases, from the batches as they are."""

import pytest

from penstock.storage import ledger
from penstock.storage.catalog.jobs import JobInfo, get_job
from penstock.storage.catalog.progress import HeldUp
from penstock.storage.ids import BatchId, JobId

from ..ledger_line import Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def postpone(line: Line, batch_id: BatchId, error: str, *, delay_s: float = 60.0, **how) -> None:
    claim = line.claim(batch_id)
    assert claim is not None
    where = {"error": error, "now": line.now, "delay_s": delay_s, "counted": False}
    ledger.retry_later(line.catalog, claim, **where, **how)


def cut(line: Line, *sources: str) -> tuple[JobId, list[BatchId]]:
    """Submit documents and cut each into a batch of its own."""
    job_id = line.submit(*sources).job_id
    line.form(max_documents=1)
    line.chunk()
    return job_id, line.send("embed")


def job(line: Line, job_id) -> JobInfo:
    return get_job(line.catalog, tenant=line.tenant, job_id=job_id)


def test_a_job_is_told_why_it_is_paused_and_until_when(line):
    job_id, [batch] = cut(line, "a")
    assert job(line, job_id).held_up is None
    postpone(line, batch, "no key: set it", postponed="paused")

    found = job(line, job_id)
    assert found.state == "running"
    assert found.held_up == HeldUp(paused=True, reason="no key: set it", next_attempt_at=line.now + 60.0)


def test_what_a_person_must_mend_is_told_before_what_is_retried(line):
    job_id, [first, second] = cut(line, "a", "b")
    postpone(line, first, "answered 500", postponed="retrying")
    assert job(line, job_id).held_up == HeldUp(False, "answered 500", line.now + 60.0)
    postpone(line, second, "zzz: the last in the alphabet", postponed="paused")
    assert job(line, job_id).held_up == HeldUp(True, "zzz: the last in the alphabet", line.now + 60.0)


def test_it_is_told_while_it_is_tried_again_and_no_more_when_that_went_well(line):
    job_id, [batch] = cut(line, "a")
    postpone(line, batch, "no key", postponed="paused", delay_s=0.0)
    claim = line.claimed("embed")
    assert job(line, job_id).held_up is not None
    line.finish_embedding(claim)
    assert job(line, job_id).held_up is None


def test_a_batch_that_is_handed_back_for_another_reason_is_paused_no_more(line):
    job_id, [batch] = cut(line, "a")
    postpone(line, batch, "no key", postponed="paused", delay_s=0.0)
    claim = line.claimed("embed")
    line.retry(claim, error="handed back: the worker was stopped", counted=False)
    assert job(line, job_id).held_up is None


def test_a_lost_worker_leaves_what_is_told_as_it_was(line):
    job_id, [batch] = cut(line, "a")
    postpone(line, batch, "no key", postponed="paused", delay_s=0.0)
    line.claimed("embed")
    line.now += 1_000.0
    line.reconcile()
    assert job(line, job_id).held_up.paused


def test_other_jobs_are_not_told(line):
    _, [batch] = cut(line, "a")
    postpone(line, batch, "no key", postponed="paused")
    other, _ = cut(line, "b")
    assert job(line, other).held_up is None
