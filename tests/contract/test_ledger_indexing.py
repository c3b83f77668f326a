"""The newest version wins, whatever order the work is done in, and nothing is ever served twice."""

import itertools
from contextlib import suppress

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import accounts, batches, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import Conflict
from penstock.storage.ledger import indexing

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, new_line, rows


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def embedded(line: Line, *sources: str, text: str = "text") -> str:
    """Bring a submission to the index stage and return its job."""
    job_id = line.submit(*sources, text=text).job_id
    line.chunk()
    line.embed()
    return job_id


def test_what_is_published_is_indexed_with_its_version(line):
    embedded(line, "a", "b")
    line.publish(line.claim_index())
    assert line.version_rows("state", "indexed_version", "finished_at") == [("indexed", 1, line.now)] * 2
    assert line.batch_states("index") == ["done"]
    assert line.claim_index() == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_newest_version_is_served_whatever_order_they_are_published_in(line, order):
    jobs = []
    for text in ("one", "two", "three"):
        jobs.append(line.submit("a", text=text).job_id)
        line.chunk()
    claims = [line.claim(batch) for batch in line.send("embed")]
    for position in order:
        with suppress(Conflict):  # overtaken: a newer version is indexed already
            line.finish_embedding(claims[position])
        line.index()

    states = line.states()["a"]
    assert states == ["superseded", "superseded", "indexed"]
    assert {get_job(line.catalog, tenant=TENANT, job_id=job).state for job in jobs} == {"done"}
    assert set(line.batch_states("index")) == {"done"}


def test_what_ends_between_the_look_and_the_claim_is_not_claimed_and_nobody_pays_for_it(line, monkeypatch):
    """What is to be published is read before the claim, so that nobody waits for that."""
    kept, cancelled = embedded(line, "a"), embedded(line, "b")
    look = indexing._groups

    def looked(*arguments, **options):
        found = look(*arguments, **options)
        cancel_job(line.catalog, tenant=TENANT, job_id=cancelled, now=line.now)
        return found

    monkeypatch.setattr(indexing, "_groups", looked)
    (group,) = line.claim_index()
    assert [version.job_id for version in group.versions] == [kept]
    line.publish([group])
    assert line.states() == {"a": ["indexed"], "b": ["cancelled"]}
    with line.catalog.read() as connection:
        owed = sa.select(accounts.c.settled).where(accounts.c.stage == "index", accounts.c.lane == -1)
        assert connection.scalars(owed).all() == [pytest.approx(1 / 256)]


def test_two_versions_that_arrive_together_are_one_document_to_index(line):
    for text in ("old", "new"):
        embedded(line, "a", text=text)
    (group,) = line.claim_index()
    assert [version.number for version in group.versions] == [2]
    line.publish([group])
    assert line.states() == {"a": ["superseded", "indexed"]}
    assert line.claim_index() == []
    assert line.batch_states("index") == ["done", "done"]


def test_an_older_version_is_kept_for_the_case_that_the_newer_one_is_cancelled(line):
    embedded(line, "a", text="old")
    newer = embedded(line, "a", text="new")
    (group,) = line.claim_index()
    cancel_job(line.catalog, tenant=TENANT, job_id=newer, now=line.now)
    with pytest.raises(Conflict):
        line.publish([group])
    line.index()
    assert line.states() == {"a": ["indexed", "cancelled"]}


def test_a_document_cancelled_during_the_publish_rolls_all_of_it_back(line):
    keep = embedded(line, "a", "b")
    job_id = embedded(line, "c")
    groups = line.claim_index()
    assert len(groups) == 2
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    with pytest.raises(Conflict):
        line.publish(groups)
    assert line.states() == {"a": ["indexing"], "b": ["indexing"], "c": ["cancelled"]}

    line.index()  # the same writer takes its own groups again, without waiting
    assert line.states() == {"a": ["indexed"], "b": ["indexed"], "c": ["cancelled"]}
    assert get_job(line.catalog, tenant=TENANT, job_id=keep).token == (line.collection.generation.id, 1)


def test_a_cancelled_document_inside_a_group_is_left_out_of_it(line):
    line.submit("a")
    job_id = line.submit("b").job_id
    line.chunk()
    line.embed()
    (group,) = line.claim_index()
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    with pytest.raises(Conflict, match="1 documents were cancelled or replaced"):
        line.publish([group])
    (group,) = line.claim_index()
    assert [version.source for version in group.versions] == ["a"]
    line.publish([group])


def test_a_writer_that_lost_its_claim_publishes_nothing(line):
    embedded(line, "a")
    zombie = line.claim_index(owner="zombie")
    assert line.claim_index(owner="heir") == []
    line.now += LEASE_S + 1
    heirs = line.claim_index(owner="heir")
    before = rows(line.catalog)
    with pytest.raises(Conflict, match="no longer held by zombie"):
        line.publish(zombie)
    assert rows(line.catalog) == before
    line.publish(heirs)


def test_a_newer_version_indexed_by_someone_else_stops_the_older_ones_publish(line):
    embedded(line, "a", text="old")
    (old,) = line.claim_index(owner="slow")
    embedded(line, "a", text="new")
    line.publish(line.claim_index(owner="quick"))
    assert line.states() == {"a": ["superseded", "indexed"]}
    with pytest.raises(Conflict):
        line.publish([old])


def test_the_database_itself_refuses_two_indexed_versions_of_a_document(line):
    for text in ("old", "new"):
        embedded(line, "a", text=text)
    with pytest.raises(sa.exc.IntegrityError), line.catalog.write() as connection:
        connection.execute(sa.update(versions).values(state="indexed"))


def test_groups_are_claimed_oldest_first_up_to_the_chunks_asked_for(line):
    for number in range(4):
        line.now += 1
        embedded(line, *(f"d{number}{letter}" for letter in "abc"))
    taken = line.claim_index(max_chunks=7)
    assert [[version.source for version in group.versions] for group in taken] == [
        ["d0a", "d0b", "d0c"],
        ["d1a", "d1b", "d1c"],
    ]
    assert len(line.claim_index(owner="other", max_chunks=1)) == 1


def test_who_has_many_groups_lets_others_wait_for_one_publish_and_not_for_all(line):
    """A delete of many documents is a batch for each few hundred; another tenant's document came after all of them."""
    for number in range(12):
        line.now += 1
        embedded(line, *(f"d{number}{letter}" for letter in "abc"))
    other = new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=2.0), objects=line.objects)
    other.now = line.now + 1
    embedded(other, "late")
    embedded(other, "later")
    taken = line.claim_index(max_chunks=8)
    assert [[version.source for version in group.versions] for group in taken] == [
        ["d0a", "d0b", "d0c"],
        ["late"],
        ["later"],  # a document of theirs costs a third of a batch of the others
        ["d1a", "d1b", "d1c"],
    ]


def test_a_publish_takes_fewer_documents_that_leave_than_chunks_that_come(line):
    """Each takes as long as several chunks, and what others submitted waits for the end of the publish."""
    for names in ("abc", "def", "ghi"):
        embedded(line, *names)
        line.publish(line.claim_index())
    for names in ("abc", "def", "ghi"):
        line.now += 1
        line.remove(*names)
    assert [len(group.versions) for group in line.claim_index(max_chunks=25)] == [3, 3]


def test_of_thousands_of_generations_a_few_are_claimed_at_once(line):
    """Each is published by itself: whatever is claimed waits for all of them, and so does what comes meanwhile."""
    tenants = [create_tenant(line.catalog, name, now=2.0) for name in ("one", "two", "three")]
    for one in (line, *(new_line(line.catalog, tenant=tenant, objects=line.objects) for tenant in tenants)):
        embedded(one, "a")
        embedded(one, "b")
    first = line.claim_index(max_generations=2)
    assert len({group.generation.id for group in first}) == 2
    assert len(first) == 4, "all that waits of those few"
    rest = line.claim_index(owner="another", max_generations=2)
    assert len({group.generation.id for group in (*first, *rest)}) == 4


def test_a_group_that_is_too_large_beside_others_is_passed_over_until_it_is_the_first(line):
    embedded(line, "a")
    line.now += 1
    embedded(line, *(f"large{number}" for number in range(9)))
    line.now += 1
    embedded(line, "b")
    (first, second) = line.claim_index(max_chunks=5)
    assert [group.versions[0].source for group in (first, second)] == ["a", "b"]
    line.publish([first, second])
    (large,) = line.claim_index(max_chunks=5)
    assert len(large.versions) == 9


def test_a_group_that_failed_before_is_claimed_alone(line):
    embedded(line, "suspect")
    for _ in range(2):
        (group,) = line.claim_index()
        line.retry(group)
    line.now += 1
    embedded(line, "a")
    embedded(line, "b")
    assert [version.source for group in line.claim_index() for version in group.versions] == ["suspect"]
    taken = line.claim_index(owner="other")
    assert sorted(version.source for group in taken for version in group.versions) == ["a", "b"]


def test_a_writer_claims_only_its_own_shard(line):
    embedded(line, "a")
    with line.catalog.write() as connection:
        connection.execute(sa.update(batches).values(shard=7))
    assert line.claim_index() == []


def test_at_the_cap_a_writers_own_leftovers_are_not_taken_for_ever(line):
    embedded(line, "a")
    for attempt in range(MAX_ATTEMPTS):
        (group,) = line.claim_index()
        assert group.attempt == attempt + 1
    assert line.claim_index() == []


def test_a_publish_ends_older_versions_in_every_earlier_stage(line):
    line.submit("a", text="one")
    chunking = line.claimed("chunk")
    line.submit("a", text="two")
    line.chunk()
    (embedding,) = (line.claim(batch) for batch in line.send("embed"))
    embedded(line, "a", text="three")
    line.index()

    assert line.states() == {"a": ["superseded", "superseded", "indexed"]}
    with pytest.raises(Conflict):
        line.finish_chunking(chunking)
    with pytest.raises(Conflict):
        line.finish_embedding(embedding)
    assert set(line.batch_states("chunk") + line.batch_states("embed")) == {"done"}
