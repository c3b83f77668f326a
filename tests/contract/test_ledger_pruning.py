"""Pruning: finished work is forgotten, and nobody who looks at documents or jobs can tell."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.jobs import JobInfo, cancel_job, list_jobs
from penstock.storage.catalog.tables import batches, versions
from penstock.storage.collecting import collect_packs
from penstock.storage.ledger import pruning
from penstock.storage.ledger.pruning import KEEP_S

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, document, new_line

LONG_AFTER = 2e12  # even for objects, which are dated by another clock


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def prune(line: Line, *, later_s: float = KEEP_S + 1) -> ledger.Pruned:
    return ledger.prune(line.catalog, now=line.now + later_s)


def index(line: Line, *sources: str, text: str) -> None:
    line.submit(*sources, text=text)
    line.run()


def told(line: Line) -> tuple[list[JobInfo], list[DocumentInfo]]:
    documents = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, limit=100)
    return list_jobs(line.catalog, tenant=TENANT), documents


def count(line: Line, table: sa.Table) -> int:
    with line.catalog.read() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


def packs_left(line: Line) -> int:
    collect_packs(line.catalog, line.objects, tenant=TENANT, now=LONG_AFTER)
    return len(list(line.objects.list("tenants/")))


def test_jobs_and_documents_tell_the_same_after_what_was_overtaken_is_forgotten(line):
    for day in range(5):
        index(line, "a", "b", text=f"text of day {day}")
    before = told(line)
    assert [job.documents for job in before[0]] == [{"indexed": 2}, *[{"superseded": 2}] * 4]

    pruned = prune(line)

    assert (pruned.batches, pruned.versions) == (5 * 3, 4 * 2)
    assert told(line) == before
    assert [job.token for job in before[0]] == [(line.collection.generation.id, day) for day in (5, 4, 3, 2, 1)]
    assert (count(line, versions), count(line, batches)) == (2, 0)


def test_what_ended_lately_stays_however_old_it_is(line):
    index(line, "a", text="old")
    line.now += KEEP_S
    index(line, "a", text="new")

    assert prune(line, later_s=0.0) == ledger.Pruned(batches=3, versions=0)
    assert count(line, batches) == 3


def test_the_newest_version_stays_however_it_ended_and_so_does_the_one_that_is_served(line):
    index(line, "a", "b", text="good")
    line.submit("a", text="bad")
    claim = line.claimed("chunk")
    failure = ledger.FailedDocument(claim.versions[0].id, "empty", "nothing in it")
    line.finish_chunking(claim, parts=[], failed=[failure])
    cancelled = line.submit("b", text="regretted").job_id
    cancel_job(line.catalog, tenant=TENANT, job_id=cancelled, now=line.now)

    assert prune(line).versions == 1
    assert line.states() == {
        "a": ["indexed", "failed"],
        "b": ["indexed"],
    }  # which is its newest since the other was cancelled

    index(line, "a", "b", text="good again")
    before = told(line)
    assert prune(line).versions == 3
    assert told(line) == before
    assert [job.documents for job in before[0][1:]] == [{"cancelled": 1}, {"failed": 1}, {"superseded": 2}]


def test_a_job_that_is_taken_up_again_adds_to_what_was_forgotten(line):
    job_id = line.submit("a").job_id
    line.run()
    for text in ("two", "three"):
        line.accept([document("a", text)], job_id=job_id)
        line.run()
        prune(line)

    [job] = told(line)[0]
    assert (job.documents, job.state) == ({"indexed": 1, "superseded": 2}, "done")


def test_a_group_that_waits_keeps_what_was_done_for_it(line):
    """A provider that is away for weeks must not cost the parts that were embedded before."""
    line.parts = 2
    line.submit("a", "b")
    line.chunk()
    first, second = (line.claim(batch) for batch in line.send("embed"))
    line.finish_embedding(first)
    line.retry(second, counted=False)

    line.now += 3 * KEEP_S
    assert prune(line, later_s=0.0).batches == 1  # the chunk batch, from which all documents moved on
    line.run()
    assert line.states() == {"a": ["indexed"], "b": ["indexed"]}


def test_a_version_that_was_overtaken_in_a_group_that_waits_stays_with_it(line):
    line.submit("a", "b", text="old")
    line.chunk()
    waiting = line.claimed("embed")
    line.submit("a", text="new")
    line.chunk()
    line.embed()
    line.index()
    assert line.states() == {"a": ["superseded", "indexed"], "b": ["embedding"]}

    assert prune(line).versions == 0
    line.finish_embedding(waiting)
    line.index()
    assert prune(line).versions == 1
    assert line.states() == {"a": ["indexed"], "b": ["indexed"]}


def test_a_merge_is_forgotten_when_its_swap_is_over(line):
    details = {"segments": ["s1"]}
    ledger.open_merge(line.catalog, generation_id=line.collection.generation.id, details=details, now=line.now)
    line.finish_merge(line.claimed("merge"))
    assert prune(line).batches == 0

    swap = ledger.claim_swap(
        line.catalog, shard=0, owner="writer", lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS
    )
    with line.catalog.write() as connection:
        ledger.finish_swap(connection, swap, now=line.now)
    assert prune(line).batches == 2


def test_whoever_prunes_at_once_every_version_is_counted_once(line, monkeypatch):
    monkeypatch.setattr(pruning, "_AT_ONCE", 4)
    for day in range(4):
        index(line, *"abcdef", text=f"text of day {day}")
    before = told(line)

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: prune(line), range(4)))

    assert sum(one.versions for one in results) == 3 * 6
    assert told(line) == before


def fail(line: Line, source: str) -> None:
    line.submit(source)
    claim = line.claimed("chunk")
    line.finish_chunking(claim, parts=[], failed=[ledger.FailedDocument(claim.versions[0].id, "empty", "nothing")])
    line.now += 1


def test_a_run_looks_at_a_few_of_those_that_stay_and_the_next_goes_on_behind_them(line, monkeypatch):
    monkeypatch.setattr(pruning, "_AT_ONCE", 2)
    monkeypatch.setattr(pruning, "_IN_VAIN", 4)
    for number in range(9):
        fail(line, f"bad {number}")
    index(line, "a", text="old")
    index(line, "a", text="new")
    progress = ledger.PruningProgress()

    def run() -> int:
        return ledger.prune(line.catalog, now=line.now + KEEP_S + 1, progress=progress).versions

    assert [run(), run(), run()] == [0, 0, 1]
    assert progress == ledger.PruningProgress()
    index(line, "bad 0", text="good")  # at the front, and found again when it is its turn
    assert [run(), run(), run()] == [1, 0, 0]
    assert count(line, batches) == 0


def test_without_progress_all_is_looked_at_once(line, monkeypatch):
    """Rows that stay are passed over, not met again with every page."""
    monkeypatch.setattr(pruning, "_AT_ONCE", 2)
    for number in range(6):
        fail(line, f"bad {number}")
    for text in ("old", "newer", "new"):
        index(line, *"abc", text=text)
    looked: list[str] = []
    page = pruning._Search._page

    def note(search, *args, **options):
        found = page(search, *args, **options)
        looked.extend(row.id for row in found)
        return found

    monkeypatch.setattr(pruning._Search, "_page", note)
    assert prune(line).versions == 6
    assert len(looked) == len(set(looked))


def test_versions_that_ended_at_the_same_moment_are_all_found(line, monkeypatch):
    monkeypatch.setattr(pruning, "_AT_ONCE", 3)
    job_id = line.submit(*"abcdefgh").job_id
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)
    line.submit(*"cfh", text="new")
    assert prune(line).versions == 3


@pytest.mark.parametrize("table", [batches, versions], ids=lambda table: table.name)
def test_a_row_that_another_holds_is_left_to_the_next_run(postgres_catalog, table):
    """Whoever waits for a row while holding others can deadlock."""
    line = new_line(postgres_catalog)
    for text in ("old", "new"):
        index(line, "a", text=text)
    held = sa.select(table.c.id).order_by(table.c.id).limit(1).with_for_update()

    with line.catalog.write() as connection:
        connection.execute(held).all()
        pruned = prune(line)
    again = prune(line)

    assert (pruned.batches + again.batches, pruned.versions + again.versions) == (6, 1)
    assert getattr(again, table.name) == 1


def test_a_pack_is_garbage_when_all_its_versions_are_forgotten(line):
    index(line, "a", "b", text="old")
    index(line, "a", text="new")
    assert prune(line).versions == 1
    assert packs_left(line) == 2  # the first one still holds b
    index(line, "b", text="new")
    assert prune(line).versions == 1
    assert packs_left(line) == 2
