"""Killed just before or after any commit, the line goes on: each document is indexed once, nothing is half done."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog import cancelling
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import batches, jobs
from penstock.storage.failpoints import VARIABLE
from penstock.storage.objects.local import LocalObjects

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, new_line, rows

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

POINTS = ("before_commit", "after_commit")
COMMITS = (
    "accept",
    "take_ready",
    "claim",
    "renew",
    "retry_later",
    "finish_chunking",
    "finish_embedding",
    "claim_index",
    "publish",
    "reconcile",
)


@pytest.fixture
def line(catalog, tmp_path) -> Line:
    return new_line(catalog, objects=LocalObjects(tmp_path / "objects"), parts=2)


def killed(failpoint: str, work: Callable[[], object]) -> bool:
    """Do ``work`` in a child process that dies at ``failpoint``. Returns whether it came to that."""
    child = os.fork()
    if child == 0:
        try:
            os.environ[VARIABLE] = failpoint
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def whole_story(line: Line) -> None:
    """Do everything once that the line can do, a batch handed back and a lapsed claim included."""
    line.submit("c", "d")
    (batch,) = line.send("chunk", forming=ledger.Forming(100))
    claim = line.claim(batch)
    ledger.renew(line.catalog, claim, lease_s=LEASE_S, now=line.now)
    line.retry(claim, counted=False)
    (batch,) = line.send("chunk")
    line.claim(batch, owner="dies")
    line.now += LEASE_S + 1
    line.reconcile()
    line.chunk()
    line.embed()
    line.index()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("commit", COMMITS)
def test_a_line_killed_at_a_commit_goes_on_and_indexes_everything_once(line, commit, point):
    line.submit("a", "b")
    assert killed(f"{commit}.{point}", lambda: whole_story(line))
    line.owner = "the next process"
    line.submit("c", "d")  # its producer got no answer and asks again
    line.run()

    assert line.states() == {source: ["indexed"] for source in "abcd"}
    for pack, offset, size, filename in line.version_rows("pack", "pack_offset", "size_bytes", "filename"):
        text = line.objects.get_range(pack, offset=offset, size_bytes=size)
        assert text == f"text of {filename.removesuffix('.txt')}".encode()
    with line.catalog.read() as connection:
        assert set(connection.scalars(sa.select(jobs.c.state))) == {"done"}
        assert set(connection.scalars(sa.select(batches.c.state))) == {"done"}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("commit", ["finish_chunking", "refund"])
def test_a_batch_of_which_some_is_left_for_another_turn_loses_none_of_it(line, commit, point):
    line.submit("a", "b", "c")
    line.form()
    (batch,) = line.send("chunk")
    claim = ledger.claim(
        line.catalog, batch, owner="dies", lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS, in_turn=True
    )
    parts = line.cut(replace(claim, versions=claim.versions[:1]))
    rest = {"parts": parts, "failed": [], "left": [version.id for version in claim.versions[1:]]}
    assert killed(
        f"{commit}.{point}",
        lambda: ledger.finish_chunking(line.catalog, line.objects, claim, **rest, now=line.now),
    )
    line.owner = "the next process"
    line.now += LEASE_S + 1
    line.reconcile()
    line.run()
    assert line.states() == {"a": ["indexed"], "b": ["indexed"], "c": ["indexed"]}


@pytest.mark.parametrize("point", POINTS)
def test_a_batch_being_taken_apart_is_taken_apart_once(line, point):
    line.submit("a", "b")
    line.form()
    for attempt in range(MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        line.claim(batch)
        line.now += LEASE_S + 1
        if attempt < MAX_ATTEMPTS - 1:
            line.reconcile()
    assert killed(f"reconcile.{point}", line.reconcile)
    line.reconcile()

    assert sorted(line.batch_states("chunk")) == ["dead", "ready", "ready"]
    line.run()
    assert line.states() == {"a": ["indexed"], "b": ["indexed"]}


@pytest.mark.parametrize("point", POINTS)
def test_a_job_is_cancelled_wholly_or_not_at_all(line, point):
    job_id = line.submit("a", "b").job_id
    line.chunk()
    before = rows(line.catalog)
    cancel = lambda: cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)  # noqa: E731 said twice
    assert killed(f"cancel_job.{point}", cancel)

    if point == "before_commit":
        assert rows(line.catalog) == before
        cancel()
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id).documents == {"cancelled": 2}
    assert line.batch_states("embed") == ["done", "done"]
    assert line.send("embed") == []


@pytest.mark.parametrize("point", POINTS)
def test_failures_are_recorded_wholly_or_not_at_all(line, point):
    line.submit("a", "b")
    line.chunk()
    claims = [line.claim(batch) for batch in line.send("embed")]
    failures = [ledger.FailedDocument(version.id, "bad", "it is bad") for version in claims[0].versions]
    before = rows(line.catalog)

    def fail() -> None:
        ledger.fail_versions(line.catalog, failures=failures, stage="embed", now=line.now)

    assert killed(f"fail_versions.{point}", fail)
    if point == "before_commit":
        assert rows(line.catalog) == before
        fail()
    assert line.states() == {"a": ["failed"], "b": ["failed"]}
    after = rows(line.catalog)
    fail()
    assert rows(line.catalog) == after


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("commit", ["open_merge", "finish_merge", "drop_merge"])
def test_a_merge_killed_at_a_commit_is_open_once_and_ends(line, commit, point):
    def merge() -> None:
        generation_id = line.collection.generation.id
        details = {"segments": ["s1"]}
        ledger.open_merge(line.catalog, generation_id=generation_id, details=details, now=line.now)
        for batch in line.send("merge"):
            claim = line.claim(batch)
            if commit == "drop_merge":
                ledger.drop_merge(line.catalog, claim, error="no", now=line.now)
            else:
                line.finish_merge(claim)

    assert killed(f"{commit}.{point}", merge)
    line.now += LEASE_S + 1
    line.reconcile()
    open_before = [
        state for stage in ("merge", "swap") for state in line.batch_states(stage) if state in {"ready", "sent"}
    ]
    assert len(open_before) == (
        0 if (commit, point) in {("open_merge", "before_commit"), ("drop_merge", "after_commit")} else 1
    )
    merge()
    assert line.batch_states("swap") == (["ready"] if commit != "drop_merge" else [])


@pytest.mark.parametrize("point", POINTS)
def test_a_collection_is_deleted_wholly_or_not_at_all(line, point):
    line.submit("a")
    line.chunk()
    before = rows(line.catalog)
    delete = lambda: delete_collection(line.catalog, tenant=TENANT, name="papers")  # noqa: E731 said twice
    assert killed(f"delete_collection.{point}", delete)
    if point == "before_commit":
        assert rows(line.catalog) == before
        delete()
    left = {table for table, found in rows(line.catalog).items() if found}
    assert left - {"accounts", "backlogs"} == {"installation", "tenants"}  # those are the tenant's


@pytest.mark.parametrize("point", POINTS)
def test_what_a_death_left_of_a_large_cancelled_job_is_cancelled_by_whoever_comes_next(line, monkeypatch, point):
    monkeypatch.setattr(cancelling, "AT_ONCE", 3)
    line.submit("a", text="old")
    line.run()
    job_id = line.submit(*"abcdefgh", text="new").job_id
    line.form(max_batches=1, max_documents=2)

    assert killed(f"cancel_rest.{point}", lambda: cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now))
    job = get_job(line.catalog, tenant=TENANT, job_id=job_id)
    left = 5 if point == "before_commit" else 2
    assert (job.state, job.documents) == ("cancelled", {"cancelled": 8 - left, "queued": left})
    assert line.send("chunk") == []  # what a batch held went first

    assert cancelling.finish_cancelled(line.catalog, now=line.now) == left
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id).documents == {"cancelled": 8}
    assert cancelling.finish_cancelled(line.catalog, now=line.now) == 0
    assert cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now).state == "cancelled"
