"""One merge per generation at a time: built, then swapped in, or dropped without harm."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.storage import ledger
from penstock.storage.errors import Conflict, NotFound
from penstock.storage.grace import COMMIT_WITHIN_S
from penstock.storage.ids import GenerationId, made_at, new_id

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, Line, new_line

BUILT = {"output": {"id": new_id("seg")}}  # as much of a `Swap` as the ledger reads


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def open_merge(line: Line, **details: object):
    generation_id = line.collection.generation.id
    return ledger.open_merge(line.catalog, generation_id=generation_id, details=details, now=line.now)


def claim_swap(line: Line, *, shard: int = 0, owner: str = "writer"):
    return ledger.claim_swap(
        line.catalog, shard=shard, owner=owner, lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS
    )


def finish_swap(line: Line, claim: ledger.Claim) -> None:
    with line.catalog.write() as connection:
        ledger.finish_swap(connection, claim, now=line.now)


def test_a_merge_becomes_a_swap_and_then_the_next_may_be_opened(line):
    merge = open_merge(line, segments=["s1", "s2"])
    assert open_merge(line) is None
    (batch,) = line.send("merge")
    claim = line.claim(batch)
    assert (claim.batch_id, claim.details, claim.versions) == (merge, {"segments": ["s1", "s2"]}, ())
    assert ledger.finish_merge(line.catalog, claim, details=BUILT, now=line.now)
    assert open_merge(line) is None

    assert claim_swap(line, shard=1) is None
    swap = claim_swap(line)
    assert (swap.stage, swap.details) == ("swap", BUILT)
    assert claim_swap(line, owner="other") is None
    finish_swap(line, swap)
    with pytest.raises(Conflict):
        finish_swap(line, swap)
    assert claim_swap(line) is None
    assert open_merge(line) is not None


def test_of_many_who_would_merge_one_may(line):
    with ThreadPoolExecutor(6) as threads:
        made = list(threads.map(lambda _: open_merge(line), range(6)))
    assert sum(one is not None for one in made) == 1


def test_generations_merge_independently(line):
    assert open_merge(line)
    assert open_merge(new_line(line.catalog, name="letters"))
    with pytest.raises(NotFound):
        ledger.open_merge(line.catalog, generation_id=GenerationId("gen_0"), details={}, now=1.0)


def test_a_merge_that_cannot_succeed_is_dropped(line):
    open_merge(line)
    (batch,) = line.send("merge")
    claim = line.claim(batch)
    ledger.drop_merge(line.catalog, claim, error="its segments are gone", now=line.now)
    assert line.batch_states("merge") == ["dead"]
    with pytest.raises(Conflict):
        ledger.finish_merge(line.catalog, claim, details=BUILT, now=line.now)
    assert open_merge(line)


def test_a_merge_that_stalled_after_writing_is_refused_and_can_be_dropped(line):
    """Nothing held its files while they were nobody's: the collector may have taken them."""
    open_merge(line)
    claim = line.claimed("merge")
    begun_at = made_at(BUILT["output"]["id"])

    with pytest.raises(Conflict, match="may be collected"):
        ledger.finish_merge(
            line.catalog, claim, details=BUILT, now=line.now, clock=lambda: begun_at + COMMIT_WITHIN_S + 1
        )
    assert (line.batch_states("merge"), line.batch_states("swap")) == (["running"], [])
    ledger.drop_merge(line.catalog, claim, error="too late", now=line.now)
    assert open_merge(line)


def test_a_merge_may_take_half_as_long_as_a_file_is_young(line):
    open_merge(line)
    last = made_at(BUILT["output"]["id"]) + COMMIT_WITHIN_S
    ledger.finish_merge(line.catalog, line.claimed("merge"), details=BUILT, now=line.now, clock=lambda: last)
    assert line.batch_states("swap") == ["ready"]


def test_only_merges_and_swaps_can_be_dropped(line):
    line.submit("a")
    with pytest.raises(Conflict, match="chunk batch"):
        ledger.drop_merge(line.catalog, line.claimed("chunk"), error="no", now=line.now)


def test_a_merge_that_kills_its_workers_is_given_up(line):
    open_merge(line)
    for _ in range(MAX_ATTEMPTS):
        (batch,) = line.send("merge")
        assert line.claim(batch) is not None
        line.now += LEASE_S + 1
        found = line.reconcile()
    assert (found.dead, found.apart) == (1, 0)
    assert line.batch_states("merge") == ["dead"]


def test_a_swap_whose_writer_died_is_taken_by_the_next(line):
    open_merge(line)
    (batch,) = line.send("merge")
    ledger.finish_merge(line.catalog, line.claim(batch), details=BUILT, now=line.now)
    old = claim_swap(line, owner="old")
    line.now += LEASE_S + 1
    new = claim_swap(line, owner="new")
    with pytest.raises(Conflict):
        finish_swap(line, old)
    finish_swap(line, new)
