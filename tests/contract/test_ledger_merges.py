"""Merges of a generation: no two of the same segment, built, then swapped in, or dropped without harm."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from penstock.storage import ledger
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import Conflict, NotFound
from penstock.storage.grace import MIN_AGE_S
from penstock.storage.ids import GenerationId

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, Line, new_line


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def open_merge(line: Line, *segments: str):
    generation_id = line.collection.generation.id
    details = {"segments": list(segments or ("s1", "s2"))}
    return ledger.open_merge(line.catalog, generation_id=generation_id, details=details, now=line.now)


def being_merged(line: Line) -> set[str]:
    return set(ledger.being_merged(line.catalog, line.collection.generation.id))


def claim_swap(line: Line, *, shard: int = 0, owner: str = "writer"):
    return ledger.claim_swap(
        line.catalog, shard=shard, owner=owner, lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS
    )


def finish_swap(line: Line, claim: ledger.Claim) -> None:
    with line.catalog.write() as connection:
        ledger.finish_swap(connection, claim, now=line.now)


def test_a_merge_becomes_a_swap_and_then_the_next_may_be_opened(line):
    merge = open_merge(line)
    assert open_merge(line) is None
    (batch,) = line.send("merge")
    claim = line.claim(batch)
    assert (claim.batch_id, claim.details, claim.versions) == (merge, {"segments": ["s1", "s2"]}, ())
    built = line.finish_merge(claim)
    assert open_merge(line) is None

    assert claim_swap(line, shard=1) is None
    swap = claim_swap(line)
    assert (swap.stage, swap.details) == ("swap", built)
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


def test_two_merges_may_be_open_that_share_no_segment(line):
    assert open_merge(line, "s1", "s2")
    assert open_merge(line, "s2", "s3") is None
    assert open_merge(line, "s3", "s4")
    assert open_merge(line, "s5", "s6") is None
    assert being_merged(line) == {"s1", "s2", "s3", "s4"}


def test_who_folds_segments_of_a_merge_that_was_just_opened_is_told(line):
    generation_id = line.collection.generation.id
    taken = being_merged(line)
    open_merge(line, "s1", "s2")

    def check(**given: set[str]) -> None:
        with line.catalog.write() as connection:
            ledger.check_not_merged(connection, generation_id, **given)

    check(taken=taken, served={"s1", "s2", "s3"})
    check(taken=being_merged(line), served={"s3"})
    with pytest.raises(Conflict, match="was opened while"):
        check(taken=taken, served={"s1", "s3"})


def test_segments_are_being_merged_until_the_swap_is_published(line):
    open_merge(line)
    built = line.finish_merge(line.claimed("merge"))
    assert being_merged(line) == set(built["inputs"])
    swap = claim_swap(line)
    assert being_merged(line) == set(built["inputs"])
    finish_swap(line, swap)
    assert being_merged(line) == set()


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
        line.finish_merge(claim)
    assert open_merge(line)


def test_a_merge_that_stalled_until_its_segment_was_collected_is_refused_and_can_be_dropped(line):
    """Nothing held its files while they were nobody's."""
    open_merge(line)
    claim = line.claimed("merge")
    built = line.merged()
    late = time.time() + 10 * MIN_AGE_S
    assert collect_generations(line.catalog, line.objects, tenant=line.tenant, now=late).objects == 1

    with pytest.raises(Conflict, match="was collected before anything named it"):
        ledger.finish_merge(line.catalog, line.objects, claim, details=built, now=line.now)
    assert (line.batch_states("merge"), line.batch_states("swap")) == (["running"], [])
    ledger.drop_merge(line.catalog, claim, error="too late", now=line.now)
    assert open_merge(line)


def test_a_merged_segment_stays_as_long_as_it_waits_for_its_swap(line):
    def collect() -> int:
        late = time.time() + 10 * MIN_AGE_S
        return collect_generations(line.catalog, line.objects, tenant=line.tenant, now=late).objects

    open_merge(line)
    line.finish_merge(line.claimed("merge"))
    assert collect() == 0
    swap = claim_swap(line)
    assert collect() == 0
    finish_swap(line, swap)
    assert collect() == 1  # published it would be in a manifest


def test_a_merge_of_a_collection_that_was_deleted_is_refused(line):
    open_merge(line)
    claim = line.claimed("merge")
    delete_collection(line.catalog, tenant=line.tenant, name=line.collection.name)

    with pytest.raises(Conflict, match="was deleted"):
        line.finish_merge(claim)


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
    line.finish_merge(line.claim(batch))
    old = claim_swap(line, owner="old")
    line.now += LEASE_S + 1
    new = claim_swap(line, owner="new")
    with pytest.raises(Conflict):
        finish_swap(line, old)
    finish_swap(line, new)
