"""Merges that were given up are tried again, later each time, until one goes well; and are told meanwhile."""

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.tables import batches
from penstock.storage.ledger.setbacks import FIRST_S, LONGEST_S, CollectionSetback, Setback, list_setbacks

from ..ledger_line import MAX_ATTEMPTS, Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def give_up(
    line: Line, *, at: float, began: float | None = None, error: str = "it broke", attempts: int = MAX_ATTEMPTS
):
    """Open a merge and end it at this moment, after so many attempts."""
    generation_id = line.collection.generation.id
    merge = ledger.open_merge(line.catalog, generation_id=generation_id, details={"segments": ["s"]}, now=at)
    values = {"state": "dead", "attempts": attempts, "error": error, "finished_at": at, "first_attempt_at": began or at}
    with line.catalog.write() as connection:
        for state in ("sent", "running"):
            connection.execute(sa.update(batches).where(batches.c.id == merge).values(state=state))
        connection.execute(sa.update(batches).where(batches.c.id == merge).values(values))


def swap_in(line: Line, *, at: float) -> None:
    line.now = at
    generation_id = line.collection.generation.id
    ledger.open_merge(line.catalog, generation_id=generation_id, details={"segments": ["s"]}, now=at)
    line.finish_merge(line.claimed("merge"))
    claim = ledger.claim_swap(line.catalog, shard=0, owner="w", lease_s=9.0, now=at, max_attempts=MAX_ATTEMPTS)
    with line.catalog.write() as connection:
        ledger.finish_swap(connection, claim, now=at)


def setback(line: Line) -> Setback | None:
    generation_id = line.collection.generation.id
    with line.catalog.read() as connection:
        return ledger.read_setbacks(connection, [generation_id], max_attempts=MAX_ATTEMPTS).get(generation_id)


def test_setbacks_are_counted_until_a_merge_goes_well(line):
    assert setback(line) is None
    give_up(line, at=1_000.0, error="first")
    give_up(line, at=2_000.0, began=1_900.0, error="second")
    give_up(line, at=2_500.0, attempts=1)  # dropped: its segments were gone
    assert setback(line) == Setback(2, 2_000.0, 100.0, "second")
    swap_in(line, at=3_000.0)
    assert setback(line) is None
    give_up(line, at=4_000.0)
    assert setback(line) == Setback(1, 4_000.0, 0.0, "it broke")


def test_each_further_time_waits_longer_and_no_less_than_the_last_one_took():
    delays = [Setback(count, 0.0, 0.0, None).again_at for count in (1, 2, 3, 9, 10, 10_000)]
    assert delays == [FIRST_S, 2 * FIRST_S, 4 * FIRST_S, 256 * FIRST_S, LONGEST_S, LONGEST_S]
    assert Setback(1, 5.0, 3_600.0, None).again_at == 3_605.0
    assert Setback(1, 5.0, 99_000.0, None).again_at == 5.0 + LONGEST_S


def test_whose_merges_were_given_up_is_listed_over_all_tenants(line):
    other = new_line(line.catalog, name="other")
    assert list_setbacks(line.catalog, max_attempts=MAX_ATTEMPTS) == []
    give_up(other, at=1_000.0)
    told = Setback(1, 1_000.0, 0.0, "it broke")
    assert list_setbacks(line.catalog, max_attempts=MAX_ATTEMPTS) == [
        CollectionSetback(other.tenant, other.collection.name, told)
    ]
