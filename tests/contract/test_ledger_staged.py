"""What was embedded waits for its writer; while that is away no more is cut for it, and others go on."""

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.tables import IS_STAGED, PRIORITIES, batches, generations, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.intake.documents import Terms
from penstock.storage.ledger.overview import PATIENCE_S, unwritten_shards
from penstock.storage.ledger.room import LEAST_CHUNKS
from penstock.storage.publishing.publisher import acquire_lease, release_lease

from ..ledger_line import Line, document, new_line

HIGH, NORMAL, LOW, ECONOMY = range(len(PRIORITIES))
MOST = ledger.Caps(3 * LEAST_CHUNKS)


@pytest.fixture
def line(catalog) -> Line:
    """Return a line with three batches that wait for the writer: as much as may."""
    made = new_line(catalog)
    for number in range(3):
        made.submit(f"embedded{number}")
        made.chunk()
        made.embed()
    return made


def queued(line: Line) -> int:
    mine = (versions.c.state == "queued", versions.c.generation_id == line.collection.generation.id)
    with line.catalog.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).where(*mine))


def test_no_more_is_cut_while_nobody_publishes_what_is_embedded_and_goes_on_when_somebody_does(line):
    line.submit("more")
    assert line.form(staged=MOST) == 0
    assert line.form(staged=ledger.Caps(MOST.depth + 1)) == 1
    line.submit("still more")
    line.index()
    assert line.form(staged=MOST) == 1


def test_chunks_count_and_not_batches(line):
    with line.catalog.write() as connection:
        connection.execute(sa.update(batches).where(batches.c.stage == "index").values(chunk_count=1_000))
    line.submit("more")
    assert line.form(staged=ledger.Caps(3_000)) == 0
    assert line.form(staged=ledger.Caps(3_001)) == 1


def test_another_tenant_of_the_shard_finds_its_share_of_the_room(line):
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0), objects=line.objects)
    line.submit("more")
    other.submit("theirs")
    assert line.form(staged=MOST) == 1
    assert (queued(line), queued(other)) == (1, 0)


def test_other_shards_go_on(line):
    elsewhere = new_line(line.catalog, name="elsewhere", objects=line.objects)
    with line.catalog.write() as connection:
        moved = sa.update(generations).where(generations.c.id == elsewhere.collection.generation.id)
        connection.execute(moved.values(shard=1))
    line.submit("more")
    elsewhere.submit("other shard")
    assert line.form(staged=MOST) == 1
    assert (queued(line), queued(elsewhere)) == (1, 0)


def test_what_overtakes_at_the_writer_is_cut(line):
    line.accept([document("urgent")], terms=Terms(HIGH))
    line.accept([document("last")], terms=Terms(LOW))
    assert line.form(staged=MOST) == 1
    with line.catalog.read() as connection:
        assert connection.scalars(sa.select(versions.c.priority).where(versions.c.state == "queued")).all() == [LOW]


def test_removals_that_wait_for_the_writer_hold_nothing_up(catalog):
    line = new_line(catalog)
    line.submit("a", "b", "c")
    line.run()
    for source in ("a", "b", "c"):
        line.remove(source)
    line.submit("more")
    assert line.form(staged=MOST) == 1


def test_a_shard_that_nobody_writes_is_named_when_its_work_has_waited_for_a_minute(line):
    assert unwritten_shards(line.catalog, now=line.now) == []
    line.now += PATIENCE_S + 1
    assert unwritten_shards(line.catalog, now=line.now) == [0]

    epoch = acquire_lease(line.catalog, shard=0, owner="writer", ttl_s=10.0, now=line.now)
    assert unwritten_shards(line.catalog, now=line.now) == [], "it is at work, however long the queue is"
    release_lease(line.catalog, shard=0, owner="writer", epoch=epoch)
    assert unwritten_shards(line.catalog, now=line.now) == [0]

    ledger.pause(line.catalog, now=line.now, tenant=line.tenant)
    assert unwritten_shards(line.catalog, now=line.now) == [], "nobody is to write it"
    ledger.resume(line.catalog, tenant=line.tenant)
    line.index()
    assert unwritten_shards(line.catalog, now=line.now) == []


def test_what_waits_is_found_by_an_index_that_holds_nothing_else(line):
    """A million removals, a batch each, wait in the same state: dispatching must not look at all of them each time."""
    key = (batches.c.shard, batches.c.tenant_id, batches.c.priority)
    asked = sa.select(*key, sa.func.sum(batches.c.chunk_count)).where(IS_STAGED).group_by(*key)
    with line.catalog.read() as connection:
        explain = "EXPLAIN QUERY PLAN" if line.catalog.dialect == "sqlite" else "EXPLAIN"
        if line.catalog.dialect != "sqlite":
            connection.exec_driver_sql("SET LOCAL enable_seqscan = off")  # the table is tiny
        plan = connection.exec_driver_sql(f"{explain} {asked.compile(dialect=connection.dialect)}").all()
    assert any("ix_batches_staged" in str(row) for row in plan), plan
