"""A large job is cancelled step by step, and nothing of it gets further meanwhile."""

import pytest
import sqlalchemy as sa

from penstock.storage.catalog import cancelling
from penstock.storage.catalog.jobs import cancel_job, cancelling_steps, get_job
from penstock.storage.catalog.tables import documents, versions

from ..ledger_line import Line, document, new_line


@pytest.fixture
def line(catalog, monkeypatch) -> Line:
    monkeypatch.setattr(cancelling, "AT_ONCE", 2)
    return new_line(catalog)


def with_state(line: Line, state: str) -> set[str]:
    named = sa.select(documents.c.source).join(versions, versions.c.document_id == documents.c.id)
    with line.catalog.read() as connection:
        return set(connection.scalars(named.where(versions.c.state == state)))


def test_what_is_nearest_to_being_indexed_is_cancelled_first(line):
    """Two documents in each state; those that could be published next go with the job itself."""
    job_id = line.submit("indexing1", "indexing2").job_id
    line.chunk()
    line.embed()
    line.accept([document("embedding1"), document("embedding2")], job_id=job_id)
    line.chunk()
    line.accept([document("chunking1"), document("chunking2")], job_id=job_id)
    line.form()
    line.accept([document("queued1"), document("queued2")], job_id=job_id)

    steps = cancelling_steps(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    for state in ("indexing", "embedding", "chunking", "queued"):
        before = with_state(line, "cancelled")
        assert next(steps).documents == 2
        assert get_job(line.catalog, tenant=line.tenant, job_id=job_id).state == "cancelled"
        assert with_state(line, "cancelled") - before == {f"{state}1", f"{state}2"}
    assert [step.documents for step in steps] == [0]


def test_nothing_of_a_cancelled_job_is_begun_while_the_rest_of_it_is_being_cancelled(line):
    job_id = line.submit(*"abcdefgh").job_id
    steps = cancelling_steps(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    next(steps)
    assert line.form() == 0
    line.submit("other")
    assert line.form() == 1
    assert with_state(line, "chunking") == {"other"}
    assert [step.documents for step in steps] == [2, 2, 2, 0]


def test_a_document_that_was_cancelled_before_it_ever_came_replaces_nothing_when_it_is_submitted_again(line):
    job_id = line.submit("new", "old").job_id
    cancel_job(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now)
    again = line.submit("new", "old")
    assert (again.accepted, again.replaced) == (2, 0)
    later = line.submit("old", text="changed")
    assert (later.accepted, later.replaced) == (1, 1)


def test_what_nobody_will_cancel_any_more_is_worked_on_and_blocks_nobody(line):
    """Whoever cancelled died, and nothing ran for longer than anybody looks for such jobs."""
    job_id = line.submit(*"abc").job_id
    next(cancelling_steps(line.catalog, tenant=line.tenant, job_id=job_id, now=line.now))
    assert line.form() == 0
    line.now += 8 * 86_400.0
    assert cancelling.finish_cancelled(line.catalog, now=line.now) == 0
    assert line.form() == 1
