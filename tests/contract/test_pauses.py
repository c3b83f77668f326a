"""A pause: nothing more is handed out, what is in hand is finished, and it outlives every process."""

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.catalog.tables import BATCH_STAGES, batches
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ledger.due import look

from ..ledger_line import Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


@pytest.fixture
def other(line) -> Line:
    return new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0), objects=line.objects)


def told(line: Line) -> str | None:
    """Why the line's newest job waits, as whoever waits for it is told."""
    [job] = list_jobs(line.catalog, tenant=line.tenant, limit=1)
    assert job.held_up is None or (job.held_up.paused and job.held_up.next_attempt_at is None)
    return job.held_up and job.held_up.reason


def work(line: Line) -> None:
    line.chunk()
    line.embed()
    line.index()


@pytest.mark.parametrize("stage", ["queued", "chunk", "embed", "index"])
def test_nothing_of_a_paused_tenant_is_handed_out_in_any_stage_and_all_of_it_later(line, other, stage):
    line.submit("a")
    if stage != "queued":
        line.form()
    for before, step in (("embed", line.chunk), ("index", line.embed)):
        if stage in (before, "index"):
            step()
    ledger.pause(line.catalog, now=line.now, tenant=line.tenant)
    was = line.states()
    due = look(line.catalog, now=line.now)
    assert not due.queued
    assert due.stages == frozenset()
    work(line)
    assert line.states() == was

    other.submit("b")
    work(other)
    assert line.states()["b"] == ["indexed"]

    ledger.resume(line.catalog, tenant=line.tenant)
    assert line.states()["a"] == was["a"]
    work(line)
    assert line.states()["a"] == ["indexed"]


def test_everything_is_paused_until_it_goes_on_and_tenants_of_their_own_stay_paused(line, other):
    for one in (line, other):
        one.submit(f"of {one.tenant}")
    assert [told(one) for one in (line, other)] == [None, None]
    ledger.pause(line.catalog, now=line.now)
    ledger.pause(line.catalog, now=line.now, tenant=other.tenant)
    work(line)
    assert set(map(tuple, line.states().values())) == {("queued",)}
    assert [told(one) for one in (line, other)] == ["everything is paused: `penstock resume --all` ends it"] * 2
    ledger.resume(line.catalog)
    assert [told(one) for one in (line, other)] == [
        None,
        "tenant 'other' is paused: `penstock resume --tenant other` ends it",
    ]
    work(line)
    assert line.states() == {"of default": ["indexed"], "of other": ["queued"]}


def test_what_is_in_hand_is_finished_and_what_comes_is_accepted(line):
    line.submit("a")
    claim = line.claimed("chunk")
    ledger.pause(line.catalog, now=line.now)
    line.finish_chunking(claim)
    line.submit("b")
    assert line.states() == {"a": ["embedding"], "b": ["queued"]}


def test_upkeep_of_a_paused_tenant_waits_too(line):
    line.submit("a")
    line.run()
    ledger.open_merge(
        line.catalog, generation_id=line.collection.generation.id, details={"segments": ["s"]}, now=line.now
    )
    ledger.pause(line.catalog, now=line.now, tenant=line.tenant)
    assert line.send("merge") == []
    with line.catalog.write() as connection:
        connection.execute(sa.update(batches).where(batches.c.stage == "merge").values(stage="swap"))
    options = {"shard": 0, "owner": "w", "lease_s": 30.0, "now": line.now, "max_attempts": 3}
    assert ledger.claim_swap(line.catalog, **options) is None
    ledger.resume(line.catalog, tenant=line.tenant)
    assert ledger.claim_swap(line.catalog, **options) is not None


def test_a_pause_is_a_row_of_the_ledger_that_says_since_when(line, catalog_url):
    assert ledger.pause(line.catalog, now=5.0) == 5.0
    assert ledger.pause(line.catalog, now=9.0) == 5.0
    ledger.pause(line.catalog, now=7.0, tenant=line.tenant)
    again = Catalog.open(catalog_url)
    try:
        with again.read() as connection:
            assert ledger.read_pauses(connection) == ledger.Pauses(5.0, (line.tenant,))
    finally:
        again.dispose()
    for tenant in (None, line.tenant, line.tenant):
        ledger.resume(line.catalog, tenant=tenant)
    assert look(line.catalog, now=line.now).in_flight == dict.fromkeys(BATCH_STAGES, 0)
