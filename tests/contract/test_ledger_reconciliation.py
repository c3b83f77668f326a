"""What a death left behind is found and put right, once, by any number of reconcilers."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.tables import batches, jobs, versions

from ..ledger_line import LEASE_S, TENANT, Line, new_line, rows

NOTHING = ledger.Reconciled(0, 0, 0, 0, 0, 0)


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def test_when_nothing_is_wrong_nothing_is_done(line):
    line.submit("a")
    line.claimed("chunk")
    before = rows(line.catalog)
    assert line.reconcile() == NOTHING
    assert rows(line.catalog) == before


def test_a_lapsed_claim_is_released_and_its_attempt_stays_counted(line):
    line.submit("a")
    claim = line.claimed("chunk")
    line.now += LEASE_S + 1
    assert line.reconcile().released == 1
    assert line.send("chunk") == [claim.batch_id]
    assert line.claim(claim.batch_id).attempt == 2


def test_a_join_that_nobody_made_is_made(line):
    line.submit("a", "b")
    line.chunk()
    line.embed()
    with line.catalog.write() as connection:  # as if the last part had been ended without a look at the others
        connection.execute(sa.delete(batches).where(batches.c.stage == "index"))
        for state in ("chunking", "embedding"):
            connection.execute(sa.update(versions).values(state=state))
    assert line.reconcile().joined == 1
    assert line.reconcile() == NOTHING
    line.index()
    assert line.states() == {"a": ["indexed"], "b": ["indexed"]}


def test_a_group_with_an_open_part_is_not_joined(line):
    line.parts = 2
    line.submit("a")
    line.chunk()
    first, _ = line.send("embed")
    line.finish_embedding(line.claim(first))
    assert line.reconcile().joined == 0


def test_a_job_that_nobody_stamped_is_stamped_and_told_as_done_before(line):
    accepted = line.submit("a")
    line.run()
    with line.catalog.write() as connection:
        connection.execute(sa.update(jobs).values(state="running", finished_at=None))
    assert get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id).state == "done"
    assert line.reconcile().jobs_done == 1
    assert get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id).finished_at == line.now


def test_many_reconcilers_at_once_do_the_work_of_one(line):
    line.submit(*(f"d{number}" for number in range(12)))
    line.form(max_documents=1)
    for batch in line.send("chunk"):
        line.claim(batch)
    line.now += LEASE_S + 1
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: line.reconcile(), range(4)))
    assert sum(one.released for one in found) == 12
    line.run()
    assert {state for states in line.states().values() for state in states} == {"indexed"}
