"""Accepting documents: committed or not at all, numbered per document, and harmless to repeat."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.documents import known
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import documents, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.collecting import Collected, collect_packs
from penstock.storage.errors import Conflict, InvalidMetadata, InvalidName, NotFound, Unavailable
from penstock.storage.grace import MIN_AGE_S
from penstock.storage.ids import GenerationId, JobId, TenantId
from penstock.storage.intake import documents as intake
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.submissions import checked

from ..ledger_line import Line, document, new_line, rows


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def packs(line: Line) -> list[str]:
    return [info.name for info in line.objects.list(f"tenants/{line.tenant}/packs/")]


def job_of(line: Line, accepted: intake.Accepted):
    return get_job(line.catalog, tenant=line.tenant, job_id=accepted.job_id)


def test_documents_of_one_submission_share_a_pack_and_are_found_in_it(line):
    texts = {"a": b"alpha", "empty": b"", "b": "böta".encode()}
    accepted = line.accept([SubmittedDocument(source, f"{source}.txt", text) for source, text in texts.items()])

    assert (accepted.accepted, accepted.unchanged, accepted.superseded) == (3, 0, 0)
    assert [one.source for one in accepted.documents] == ["a", "empty", "b"]
    found = line.version_rows("filename", "pack", "pack_offset", "size_bytes", "number", "state")
    read = {name: line.objects.get_range(pack, offset=at, size_bytes=size) for name, pack, at, size, *_ in found}
    assert read == {f"{source}.txt": text for source, text in texts.items()}
    assert {row[4:] for row in found} == {(1, "queued")}
    assert len(packs(line)) == 1


def test_submitting_again_makes_no_version_no_pack_and_a_job_that_is_done(line):
    first = line.submit("a", "b")
    again = line.submit("a", "b")

    assert (again.accepted, again.unchanged) == (0, 2)
    assert again.job_id != first.job_id
    assert [one.document_id for one in again.documents] == [one.document_id for one in first.documents]
    assert all(one.version_id is None and one.number == 1 for one in again.documents)
    assert (job_of(line, again).state, job_of(line, again).unchanged) == ("done", 2)
    assert len(packs(line)) == 1
    assert line.states() == {"a": ["queued"], "b": ["queued"]}


@pytest.mark.parametrize(
    "changed",
    [{"title": "T"}, {"metadata": {"year": 2}}, {"event_time": 5.0}, {"expires_at": 9e9}],
    ids=lambda one: next(iter(one)),
)
def test_other_metadata_make_a_new_version(line, changed):
    line.accept([document("a", "text", metadata={"year": 1})])
    again = line.accept([document("a", "text", **{"metadata": {"year": 1}, **changed})])
    assert (again.accepted, again.documents[0].number) == (1, 2)


def test_the_order_of_metadata_keys_makes_no_new_version(line):
    line.accept([document("a", metadata={"x": 1, "y": {"p": 1, "q": 2}})])
    assert line.accept([document("a", metadata={"y": {"q": 2, "p": 1}, "x": 1})]).unchanged == 1


def test_a_newer_version_supersedes_one_that_is_still_queued_and_ends_its_job(line):
    first = line.submit("a", text="old")
    second = line.submit("a", text="new")

    assert (second.accepted, second.superseded) == (1, 1)
    assert line.states() == {"a": ["superseded", "queued"]}
    assert job_of(line, first).state == "done"
    assert job_of(line, second).documents == {"queued": 1}


def test_a_newer_version_leaves_one_alone_that_is_being_worked_on(line):
    line.submit("a", text="old")
    line.claimed("chunk")
    assert line.submit("a", text="new").superseded == 0
    assert line.states() == {"a": ["chunking", "queued"]}


@pytest.mark.parametrize("ending", ["failed", "cancelled"])
def test_a_document_that_ended_badly_is_taken_again_unchanged(line, ending):
    line.submit("a")
    with line.catalog.write() as connection:
        connection.execute(sa.update(versions).values(state=ending))
    again = line.submit("a")
    assert (again.accepted, again.documents[0].number) == (1, 2)


def test_one_source_given_twice_is_refused_by_name(line):
    with pytest.raises(InvalidName, match="'a' was given twice"):
        line.accept([document("a", "one"), document("b"), document("a", "two")])
    assert line.states() == {}
    assert packs(line) == []


@pytest.mark.parametrize(
    ("fields", "error", "told"),
    [
        ({"source": ""}, InvalidName, "1 to 2,048 bytes"),
        ({"source": "x" * 2_049}, InvalidName, "1 to 2,048 bytes"),
        ({"source": "a\0b"}, InvalidName, "NUL"),
        ({"filename": "x" * 4_097}, InvalidName, "filename of 'a' has 4,097 characters: use at most 4,096"),
        ({"title": "é" * 4_097}, InvalidName, "title of 'a' has 4,097 characters: use at most 4,096"),
        ({"media_type": "x" * 256}, InvalidName, "media type of 'a' has 256 characters: use at most 255"),
        ({"filename": "\ud800"}, InvalidName, "surrogate"),
        ({"title": "a\0"}, InvalidName, "the title of 'a'"),
        ({"metadata": {"x": float("nan")}}, InvalidMetadata, "'x'"),
        ({"event_time": float("inf")}, InvalidMetadata, "event_time of 'a'"),
        ({"event_time": float("nan")}, InvalidMetadata, "event_time of 'a'"),
        ({"expires_at": 1_717_156_800_000.0}, InvalidMetadata, "not milliseconds"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_name(fields, error, told):
    with pytest.raises(error, match=told):
        checked([SubmittedDocument(**{"source": "a", "filename": "a.txt", "data": b"", **fields})])


def test_an_awkward_source_is_kept_as_it_is(line):
    sources = ["x" * 2_048, "ü/日本 %s ? :name '\"", "  ", "a\nb"]
    line.submit(*sources)
    assert sorted(line.states()) == sorted(sources)


def test_further_requests_append_to_a_job_and_reopen_it_when_it_was_done(line):
    first = line.submit("a")
    line.accept([document("b")], job_id=first.job_id)
    assert job_of(line, first).documents == {"queued": 2}
    line.run()
    assert job_of(line, first).state == "done"

    line.accept([document("b")], job_id=first.job_id)
    assert (job_of(line, first).state, job_of(line, first).unchanged) == ("done", 1)
    line.accept([document("c")], job_id=first.job_id)
    assert (job_of(line, first).state, job_of(line, first).finished_at) == ("running", None)
    assert job_of(line, first).documents == {"indexed": 2, "queued": 1}


def test_a_job_that_cannot_take_more_says_why_and_takes_nothing(line):
    other = new_line(line.catalog, name="letters")
    theirs = other.submit("a")
    mine = line.submit("a")
    cancel_job(line.catalog, tenant=line.tenant, job_id=mine.job_id, now=line.now)
    before = rows(line.catalog)

    with pytest.raises(Conflict, match="another collection"):
        line.accept([document("b")], job_id=theirs.job_id)
    with pytest.raises(Conflict, match="was cancelled"):
        line.accept([document("b")], job_id=mine.job_id)
    with pytest.raises(NotFound, match="there is no job 'job_0'"):
        line.accept([document("b")], job_id=JobId("job_0"))
    assert rows(line.catalog) == before


def test_the_collections_generations_and_jobs_of_another_tenant_do_not_exist(line):
    theirs = new_line(line.catalog, tenant=create_tenant(line.catalog, "acme", now=1.0))
    job_id = theirs.submit("a").job_id
    line.submit("a", text="mine")
    intruder = Line(line.catalog, theirs.collection)  # tenant default, collection of acme

    with pytest.raises(NotFound, match="no collection"):
        intruder.submit("x")
    with pytest.raises(NotFound, match="no job"):
        line.accept([document("x")], job_id=job_id)
    with pytest.raises(NotFound, match="no collection"):
        known(line.catalog, tenant=TenantId("default"), collection_id=theirs.collection.id, hashes={})
    mixed = Line(line.catalog, line.collection)
    with pytest.raises(NotFound, match="no generation"):
        intake.accept(
            line.catalog,
            line.objects,
            tenant=line.tenant,
            collection_id=mixed.collection.id,
            generation_id=GenerationId(theirs.collection.generation.id),
            documents=[document("x")],
            now=1.0,
        )


def test_rival_submissions_of_the_same_sources_get_numbers_of_their_own(line):
    sources = [f"s{number}" for number in range(20)]

    def submit(rival: int) -> intake.Accepted:
        order = sources if rival % 2 else sources[::-1]
        return line.accept([document(source, f"version of {rival}") for source in order])

    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(submit, range(6)))

    assert sum(result.accepted for result in results) == 6 * len(sources)
    with line.catalog.read() as connection:
        numbered = sa.select(documents.c.source, versions.c.number, versions.c.state, documents.c.newest)
        found = connection.execute(numbered.join(versions, versions.c.document_id == documents.c.id)).all()
    for source in sources:
        mine = sorted((row.number, row.state) for row in found if row.source == source)
        assert [number for number, _ in mine] == [1, 2, 3, 4, 5, 6]
        assert [state for _, state in mine] == ["superseded"] * 5 + ["queued"]
    assert {row.newest for row in found} == {6}


def test_bytes_left_out_as_unchanged_are_written_after_all_when_someone_was_faster(line, monkeypatch):
    line.submit("a", text="old")
    write_pack = intake.write_pack
    packed: list[int] = []

    def write(*args, **options):
        if not packed:
            packed.append(0)
            line.submit("a", text="in between")  # "a" looked unchanged, and is not any more
        pack = write_pack(*args, **options)
        packed.append(len(pack.offsets))
        return pack

    monkeypatch.setattr(intake, "write_pack", write)
    accepted = line.accept([document("a", "old of a"), document("b", "new")])

    assert packed[-2:] == [1, 2]
    assert (accepted.accepted, accepted.unchanged) == (2, 0)
    found = {row[0]: row[1:] for row in line.version_rows("id", "pack", "pack_offset", "size_bytes")}
    pack, offset, size = found[accepted.documents[0].version_id]
    assert line.objects.get_range(pack, offset=offset, size_bytes=size) == b"old of a"


def test_an_empty_submission_is_a_job_that_is_done(line):
    accepted = line.accept([])
    assert accepted.accepted == 0
    assert job_of(line, accepted).state == "done"


def test_known_tells_what_need_not_be_sent_again(line):
    line.submit("kept", "failed", "other")
    hashes = {
        one.source: one.content_hash for one in checked([document(s, f"text of {s}") for s in ("kept", "failed")])
    }
    with line.catalog.write() as connection:
        failed = sa.select(documents.c.id).where(documents.c.source == "failed").scalar_subquery()
        connection.execute(sa.update(versions).where(versions.c.document_id == failed).values(state="failed"))
    hashes |= {"other": b"another hash", "never seen": b"x"}

    found = known(line.catalog, tenant=line.tenant, collection_id=line.collection.id, hashes=hashes)
    assert (found.kept, found.dead) == ({"kept"}, {"failed"})
    assert not known(line.catalog, tenant=line.tenant, collection_id=line.collection.id, hashes={"failed": b"new"}).dead


def test_an_old_pack_that_is_collected_during_a_submission_is_written_again(line, monkeypatch):
    write_pack = intake.write_pack
    collected: list[str] = []

    def write_and_lose(objects, *args, **kwargs):
        pack = write_pack(objects, *args, **kwargs)
        if not collected:  # the collector took the former pack of these bytes for garbage, just now
            collected.append(pack.name)
            assert collect_later(line).objects == 1
        return pack

    monkeypatch.setattr(intake, "write_pack", write_and_lose)
    line.submit("a")

    assert packs(line) == collected


def test_a_collector_that_died_with_its_deletes_done_is_noticed_too(line, monkeypatch):
    """Its transaction was rolled back: nothing but the beginning of its sweep is left of it."""
    write_pack, collected = intake.write_pack, []

    def die(*_args: object) -> None:
        raise RuntimeError("dies here")

    def write_and_lose(objects, *args, **kwargs):
        pack = write_pack(objects, *args, **kwargs)
        if not collected:
            collected.append(pack.name)
            with monkeypatch.context() as patched:
                patched.setattr("penstock.storage.catalog.engine.hit", lambda where: "collect_packs" in where and die())
                with pytest.raises(RuntimeError):
                    collect_later(line)
            assert packs(line) == []
        return pack

    monkeypatch.setattr(intake, "write_pack", write_and_lose)
    line.submit("a")
    assert packs(line) == collected


def test_a_pack_that_is_collected_again_and_again_is_an_outage_and_accepts_nothing(line, monkeypatch):
    write_pack = intake.write_pack

    def write_and_lose(objects, *args, **kwargs):
        pack = write_pack(objects, *args, **kwargs)
        assert collect_later(line).objects == 1
        return pack

    monkeypatch.setattr(intake, "write_pack", write_and_lose)
    with pytest.raises(Unavailable, match="Try again"):
        line.submit("a")
    assert line.states() == {}


@pytest.fixture
def postgres_line(postgres_catalog) -> Line:
    return new_line(postgres_catalog)


def collect_later(line: Line) -> Collected:
    """Collect when every pack that there is has become old."""
    return collect_packs(line.catalog, line.objects, tenant=line.tenant, now=time.time() + 2 * MIN_AGE_S)


def until_it_waits_for_a_lock(catalog: Catalog, rival: "Future[Any]") -> None:
    """Return when a transaction waits for another one's lock, or when ``rival`` has come through without."""
    here = "datname = current_database() AND wait_event_type = 'Lock'"
    waiting = sa.text(f"SELECT count(*) FROM pg_stat_activity WHERE {here}")
    deadline = time.monotonic() + 20
    while not rival.done():
        with catalog.read() as connection:
            if connection.scalar(waiting):
                return
        assert time.monotonic() < deadline, "it neither waits nor ends"
        time.sleep(0.01)


def test_the_collector_waits_for_an_accept_that_stalls_before_its_commit(postgres_line, monkeypatch):
    """However long it stalls: to this collector the pack is old, and no version names it yet."""
    line = postgres_line
    insert_versions = intake._insert_versions
    collecting: list[Future[Collected]] = []

    def stall(*args, **kwargs):
        collecting.append(threads.submit(collect_later, line))
        until_it_waits_for_a_lock(line.catalog, collecting[0])
        assert not collecting[0].done()
        return insert_versions(*args, **kwargs)

    monkeypatch.setattr(intake, "_insert_versions", stall)
    with ThreadPoolExecutor(1) as threads:
        line.submit("a")

    assert collecting[0].result().objects == 0
    assert len(packs(line)) == 1


def test_an_accept_into_a_collection_made_meanwhile_waits_for_the_collector(postgres_line, monkeypatch):
    """The collector has looked already, and found that nobody names the pack."""
    line = postgres_line
    line.submit("a")
    delete_collection(line.catalog, tenant=line.tenant, name="papers")
    delete = line.objects.delete
    accepting: list[Future[intake.Accepted]] = []

    def stall(name):
        accepting.append(threads.submit(new_line(line.catalog, name="letters", objects=line.objects).submit, "a"))
        until_it_waits_for_a_lock(line.catalog, accepting[0])
        delete(name)

    monkeypatch.setattr(line.objects, "delete", stall)
    with ThreadPoolExecutor(1) as threads:
        assert collect_later(line).objects == 1

    assert accepting[0].result().accepted == 1
    assert {row[0] for row in line.version_rows("pack")} == set(packs(line))
