"""Removals and updates are accepted like documents, ordered like versions, and nothing of them is lost or repeated."""

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.documents import DocumentInfo, get_document, known, list_documents
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import OF_DOCUMENT, batches, documents, jobs, versions
from penstock.storage.collecting import collect_packs
from penstock.storage.errors import Conflict, InvalidMetadata, NotFound
from penstock.storage.ids import CollectionId, DocumentId, JobId
from penstock.storage.intake.removals import AT_ONCE, remove_documents, survey_documents
from penstock.storage.intake.submissions import SubmittedDocument
from penstock.storage.intake.updates import DocumentChange, update_document
from penstock.storage.ledger.pruning import KEEP_S

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, document, new_line, rows


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def serve(line: Line, *sources: str, text: str = "text") -> None:
    line.submit(*sources, text=text)
    line.run()


def job_of(line: Line, job_id: JobId) -> dict[str, int]:
    return dict(get_job(line.catalog, tenant=TENANT, job_id=job_id).documents)


def listed(line: Line, **options) -> dict[str, str]:
    found = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, limit=100, **options)
    return {info.source: info.state for info in found}


def counted(line: Line) -> dict[str, int]:
    return dict(get_collection(line.catalog, tenant=TENANT, name=line.collection.name).documents)


# Deletes


def test_a_deleted_document_leaves_lists_and_counts_and_its_job_says_so(line):
    serve(line, "a", "b")
    removed = line.remove("a", "nobody")
    assert (removed.deleted, removed.already_deleted, removed.not_found) == (1, 0, 1)
    assert listed(line) == {"a": "deleting", "b": "indexed"}
    assert get_job(line.catalog, tenant=TENANT, job_id=removed.job_id).state == "running"

    line.index()

    job = get_job(line.catalog, tenant=TENANT, job_id=removed.job_id)
    assert (job.state, job.documents, job.token) == ("done", {"deleted": 1}, (line.collection.generation.id, 2))
    assert line.states() == {"a": ["superseded", "deleted"], "b": ["indexed"]}
    assert listed(line) == {"b": "indexed"}
    assert counted(line) == {"indexed": 1}
    assert listed(line, state="deleted") == {"a": "deleted"}


def test_what_a_deleted_document_said_is_forgotten_but_its_source(line):
    line.accept([document("a", "text", title="Secret", metadata={"who": "Ada"}, event_time=1.0, expires_at=9e9)])
    line.run()
    line.remove("a")
    before = get_document(
        line.catalog, tenant=TENANT, collection_id=line.collection.id, document_id=line.document_id("a")
    )
    assert (before.title, before.metadata, before.state) == ("Secret", {"who": "Ada"}, "deleting")
    line.index()
    after = get_document(
        line.catalog, tenant=TENANT, collection_id=line.collection.id, document_id=line.document_id("a")
    )
    told = (after.source, after.state, after.title, after.metadata, after.event_time, after.expires_at)
    assert told == ("a", "deleted", None, {}, None, None)


def test_deleting_twice_or_what_never_was_is_harmless_and_says_so(line):
    serve(line, "a")
    document_id = line.document_id("a")
    first = line.remove("a")
    before = rows(line.catalog, without=["jobs"])
    again = line.remove("a", ids=[document_id, "doc_0", "\0", "\ud800"])
    assert (again.deleted, again.already_deleted, again.not_found) == (0, 1, 3)
    assert rows(line.catalog, without=["jobs"]) == before
    assert get_job(line.catalog, tenant=TENANT, job_id=again.job_id).state == "done"
    line.index()
    assert line.remove("a").already_deleted == 1
    assert job_of(line, first.job_id) == {"deleted": 1}


def test_a_document_that_is_named_by_id_and_by_source_counts_once_before_and_after(line):
    serve(line, "a", "b")
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    named = {"document_ids": [line.document_id("a"), "doc_0"], "sources": ["a", "b", "nobody"]}
    said = survey_documents(line.catalog, **place, **named)
    assert (said.deleted, said.already_deleted, said.not_found) == (2, 0, 2)
    assert [source for _, source in said.sample] == ["a", "b"]
    assert said.missing == ["doc_0", "nobody"]
    removed = line.remove("a", "b", "nobody", ids=named["document_ids"])
    assert (removed.deleted, removed.already_deleted, removed.not_found) == (2, 0, 2)
    assert job_of(line, removed.job_id) == {"deleting": 2}
    again = survey_documents(line.catalog, **place, **named)
    assert (again.deleted, again.already_deleted, again.not_found) == (0, 2, 2)


def test_a_document_that_changed_since_it_was_looked_at_is_not_deleted(line):
    serve(line, "a", "b", "c")
    line.submit("b", text="newer")
    line.update("c", metadata={"lang": "en"})
    looked_at = dict.fromkeys(("a", "b", "c"), 1)
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    said = survey_documents(line.catalog, **place, sources=["a", "b", "c"], if_numbers=looked_at)
    removed = line.remove("a", "b", "c", if_numbers=looked_at)
    for found in (said, removed):
        assert (found.deleted, found.already_deleted, found.not_found, found.changed) == (1, 0, 0, 2)
        assert found.stayed == [(line.document_id(source), source) for source in ("b", "c")]
    again = line.remove("a", "b", "c", if_numbers=looked_at)
    assert (again.deleted, again.already_deleted, again.changed) == (0, 1, 2)
    assert line.remove("b", "c", if_numbers={"b": 2}).deleted == 2


def test_a_document_of_another_collection_or_tenant_is_not_found(line):
    serve(line, "a")
    other = new_line(line.catalog, name="others")
    document_id = line.document_id("a")
    removed = other.remove("a", ids=[document_id])
    assert (removed.deleted, removed.not_found) == (0, 2)
    with pytest.raises(NotFound):
        other.remove(job_id=JobId("job_0"))
    with pytest.raises(Conflict, match="another collection"):
        other.remove("a", job_id=line.submit("b").job_id)
    with pytest.raises(NotFound, match="no collection"):
        remove_documents(
            line.catalog,
            tenant=TENANT,
            collection_id=CollectionId("col_0"),
            generation_id=line.collection.generation.id,
            document_ids=[document_id],
            now=1.0,
        )


def test_the_same_bytes_may_be_submitted_again_after_a_delete_and_are_new(line):
    serve(line, "a")
    hashes = {"a": next(row[0] for row in line.version_rows("content_hash"))}
    ask = {"tenant": TENANT, "collection_id": line.collection.id, "hashes": hashes}
    assert known(line.catalog, **ask).kept == {"a"}
    line.remove("a")
    assert known(line.catalog, **ask).kept == set()
    again = line.submit("a")
    assert (again.accepted, again.replaced, again.unchanged) == (1, 0, 0)
    line.index()
    line.run()
    assert line.states() == {"a": ["superseded", "deleted", "indexed"]}
    line.remove("a")
    line.index()
    assert line.submit("a").replaced == 0


@pytest.mark.parametrize("stage", ["queued", "chunk", "embed"])
def test_a_delete_wins_over_the_older_version_in_every_stage_it_may_be_in(line, stage):
    older = line.submit("a", "b").job_id
    for work in {"queued": [], "chunk": [line.chunk], "embed": [line.chunk, line.embed]}[stage]:
        work()
    line.remove("a")
    line.index()
    line.run()
    assert line.states() == {"a": ["superseded", "deleted"], "b": ["indexed"]}
    assert job_of(line, older) == {"superseded": 1, "indexed": 1}


def test_a_newer_version_wins_over_a_delete_whichever_is_published_first(line):
    serve(line, "a", "b")
    line.remove("a", "b")
    newer = line.submit("a", "b", text="newer")
    assert newer.superseded == 0, "a delete was dropped before the newer version was there"
    line.chunk()
    line.embed()
    groups = line.claim_index()
    assert [version.number for group in groups for version in group.versions] == [3, 3]
    line.publish(groups)
    line.run()
    assert line.states() == {name: ["superseded", "superseded", "indexed"] for name in "ab"}


def test_a_delete_happens_although_the_newer_version_fails(line):
    serve(line, "a")
    line.remove("a")
    line.submit("a", text="newer")
    claim = line.claimed("chunk")
    line.finish_chunking(claim, parts=[], failed=[ledger.FailedDocument(claim.versions[0].id, "empty", "nothing")])
    line.index()
    assert line.states() == {"a": ["superseded", "deleted", "failed"]}


def test_more_documents_than_one_transaction_takes_are_one_job(line):
    count = AT_ONCE + 20
    line.accept([document(f"s{number:04}", "text") for number in range(count)])
    line.form(max_documents=count, max_bytes=1 << 30)
    with line.catalog.write() as connection:
        for state in ("embedding", "indexing", "indexed"):
            connection.execute(sa.update(versions).values(state=state, batch_id=None, indexed_version=1))
    sources = [f"s{number:04}" for number in range(count)]
    removed = line.remove(*sources)
    assert removed.deleted == count
    assert line.batch_states("index") == ["ready", "ready"]
    line.index()
    assert job_of(line, removed.job_id) == {"deleted": count}


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_removal_is_looked_over_and_logged_in_transactions_of_one_slice_each(line, monkeypatch, kind):
    """A filter may accept a million documents: nobody waits for them all, and a server may tidy up in between."""
    serve(line, *"abcde")
    ids = [line.document_id(source) for source in "abcde"]
    monkeypatch.setattr("penstock.storage.intake.removals.AT_ONCE", 2)
    opened, usual = [], getattr(line.catalog, kind)
    monkeypatch.setattr(line.catalog, kind, lambda *what: opened.append(what) or usual(*what))
    if kind == "read":
        said = survey_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, document_ids=ids)
        assert (said.deleted, said.not_found) == (5, 0)
    else:
        assert line.remove(ids=ids).deleted == 5
    assert len(opened) == 3


def test_a_removal_cut_short_between_two_slices_goes_on_where_it_was(line, monkeypatch):
    monkeypatch.setattr("penstock.storage.intake.removals.AT_ONCE", 2)
    serve(line, *"abcde")
    first = line.remove("a", "b")  # what was committed before the process died
    rest = line.remove(*"abcde")
    assert (rest.deleted, rest.already_deleted) == (3, 2)
    line.index()
    assert counted(line) == {}
    assert job_of(line, first.job_id) == {"deleted": 2}
    assert job_of(line, rest.job_id) == {"deleted": 3}


def test_a_cancelled_delete_leaves_the_document_where_it_was(line):
    serve(line, "a")
    removed = line.remove("a")
    cancel_job(line.catalog, tenant=TENANT, job_id=removed.job_id, now=line.now)
    assert listed(line) == {"a": "indexed"}
    assert counted(line) == {"indexed": 1}
    line.index()
    assert line.states() == {"a": ["indexed", "cancelled"]}
    assert listed(line) == {"a": "indexed"}
    assert line.batch_states("index")[-1] == "done"
    assert line.remove("a").deleted == 1
    line.index()
    assert line.states() == {"a": ["superseded", "cancelled", "deleted"]}
    assert listed(line) == {}


def cancel(line: Line, job_id: JobId) -> None:
    cancel_job(line.catalog, tenant=TENANT, job_id=job_id, now=line.now)


@pytest.mark.parametrize("what", ["new bytes", "an update", "a delete"])
def test_a_document_is_shown_as_what_is_served_when_what_was_to_follow_is_cancelled(line, what):
    serve(line, "a", text="served")
    served = document_of(line, "a")
    follow = {
        "new bytes": lambda: line.submit("a", text="new").job_id,
        "an update": lambda: line.update("a", values={"title": "new"}).job_id,
        "a delete": lambda: line.remove("a").job_id,
    }[what]
    for _ in range(2):
        cancel(line, follow())
        assert document_of(line, "a") == served
    again = line.submit("a", text="new")
    assert again.documents[0].number == 4
    line.run()
    assert document_of(line, "a").number == 4
    assert listed(line) == {"a": "indexed"}


def document_of(line: Line, source: str) -> DocumentInfo:
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    return get_document(line.catalog, **place, document_id=line.document_id(source))


def test_a_cancelled_delete_of_a_document_on_its_way_shows_it_on_its_way(line):
    serve(line, "a")
    line.submit("a", text="new")
    line.claimed("chunk")
    removed = line.remove("a")
    assert listed(line) == {"a": "deleting"}
    cancel(line, removed.job_id)
    assert listed(line) == {"a": "chunking"}


def test_a_document_of_which_nothing_is_left_but_what_was_cancelled_says_so(line):
    cancel(line, line.submit("never", text="served").job_id)
    serve(line, "gone")
    line.remove("gone")
    line.index()
    cancel(line, line.submit("gone", text="again").job_id)
    assert listed(line) == {"never": "cancelled", "gone": "cancelled"}


def test_of_two_jobs_on_a_document_each_cancels_its_own(line):
    serve(line, "a", "b")
    update = line.update("a", values={"title": "new"}).job_id
    removed = line.remove("a", "b").job_id
    cancel(line, update)
    assert listed(line) == {"a": "deleting", "b": "deleting"}
    cancel(line, removed)
    assert listed(line) == {"a": "indexed", "b": "indexed"}


def test_removals_that_cannot_be_published_are_tried_alone_and_fail_with_their_reason(line):
    serve(line, "a", "b")
    job_id = line.remove("a", "b").job_id
    for _ in range(2 * MAX_ATTEMPTS + 2):
        for group in line.claim_index():
            line.retry(group, error="the disk is gone")
    assert job_of(line, job_id) == {"failed": 2}
    stages = [row[0] for row in line.version_rows("stage") if row[0]]
    assert stages == ["index", "index"]
    assert line.states() == {"a": ["indexed", "failed"], "b": ["indexed", "failed"]}
    assert line.batch_states("chunk") == ["done"], "a removal was sent to the chunk role"


# What is left of it later


def test_a_deleted_document_is_forgotten_after_a_week_with_its_bytes(line):
    serve(line, "a", "b")
    job_id = line.remove("a").job_id
    line.index()
    before = get_job(line.catalog, tenant=TENANT, job_id=job_id)

    ledger.prune(line.catalog, now=line.now + KEEP_S + 1)

    assert line.states() == {"b": ["indexed"]}
    with line.catalog.read() as connection:
        assert connection.scalars(sa.select(documents.c.source)).all() == ["b"]
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id) == before
    assert line.remove("a").not_found == 1
    line.remove("b")
    line.index()
    ledger.prune(line.catalog, now=line.now + KEEP_S + 1)
    collect_packs(line.catalog, line.objects, tenant=TENANT, now=2e12)
    assert list(line.objects.list("tenants/")) == []
    assert line.submit("a").accepted == 1


def test_a_document_that_is_forgotten_while_it_is_submitted_is_made_anew(postgres_catalog):
    line = new_line(postgres_catalog)
    serve(line, "a")
    former = line.document_id("a")
    line.remove("a")
    line.index()
    with postgres_catalog.write() as held:
        held.execute(sa.select(documents.c.id).with_for_update()).all()
        ledger.prune(postgres_catalog, now=line.now + KEEP_S + 1)  # passes over the document, whose versions are gone
    assert line.document_id("a") == former
    again = line.submit("a")
    assert (again.accepted, again.documents[0].number) == (1, 3)


# Updates


def said(line: Line, source: str) -> tuple:
    info = get_document(
        line.catalog, tenant=TENANT, collection_id=line.collection.id, document_id=line.document_id(source)
    )
    return info.title, dict(info.metadata), info.event_time, info.expires_at


def test_an_update_of_an_indexed_document_goes_to_the_writer_alone(line):
    line.accept([document("a", "text", title="A", metadata={"x": 1, "deep": {"y": 2, "z": 3}})])
    line.run()
    (chunks,) = {row[0] for row in line.version_rows("chunk_count")}
    updated = line.update("a", values={"expires_at": 9e9}, patch={"deep": {"y": None}, "new": [1]})
    assert updated.changed
    assert (line.form(), line.send("chunk"), line.send("embed")) == (0, [], [])
    (group,) = line.claim_index()
    assert (group.parts, [version.action for version in group.versions]) == ((), ["update"])
    line.publish([group])
    assert line.states() == {"a": ["superseded", "indexed"]}
    assert said(line, "a") == ("A", {"x": 1, "deep": {"z": 3}, "new": [1]}, None, 9e9)
    assert line.version_rows("chunk_count")[-1] == (chunks,)
    same = line.version_rows("content_hash", "pack", "pack_offset", "size_bytes", "filename")
    assert same[0] == same[1]


def test_an_update_that_changes_nothing_is_unchanged(line):
    line.accept([document("a", "text", metadata={"x": 1})])
    line.run()
    updated = line.update("a", metadata={"x": 1})
    job = get_job(line.catalog, tenant=TENANT, job_id=updated.job_id)
    assert (updated.changed, job.state, job.unchanged) == (False, "done", 1)
    assert line.claim_index() == []


def test_updates_build_on_each_other_before_and_after_they_are_published(line):
    serve(line, "a")
    line.update("a", patch={"x": 1})
    line.update("a", patch={"y": 2})
    line.index()
    line.update("a", values={"title": "T"})
    line.index()
    assert said(line, "a")[:2] == ("T", {"x": 1, "y": 2})
    assert line.states() == {"a": ["superseded"] * 3 + ["indexed"]}


def test_an_update_of_a_document_on_its_way_starts_it_again_and_loses_nothing(line):
    line.accept([document("a", "text", metadata={"x": 1})])
    line.chunk()
    line.update("a", patch={"y": 2})
    line.run()
    assert line.states() == {"a": ["superseded", "indexed"]}
    assert said(line, "a")[1] == {"x": 1, "y": 2}
    collect_packs(line.catalog, line.objects, tenant=TENANT, now=2e12)
    assert len(list(line.objects.list("tenants/"))) == 1


def test_a_document_that_was_submitted_anew_is_not_overwritten_by_an_older_update(line):
    serve(line, "a")
    line.update("a", patch={"x": 1})
    line.accept([document("a", "newer", metadata={"z": 1})])
    line.chunk()
    line.embed()
    groups = line.claim_index()
    assert [version.number for group in groups for version in group.versions] == [3]
    line.publish(groups)
    line.run()
    assert said(line, "a")[1] == {"z": 1}


def test_the_same_document_submitted_after_an_update_counts_as_the_update_says(line):
    submitted = SubmittedDocument("a", "a.txt", b"text", metadata={"x": 1})
    line.accept([submitted])
    line.run()
    line.update("a", patch={"x": 2})
    line.index()
    assert line.accept([SubmittedDocument("a", "a.txt", b"text", metadata={"x": 2})]).unchanged == 1
    assert line.accept([submitted]).replaced == 1


def test_an_update_is_refused_where_there_is_nothing_to_describe(line):
    serve(line, "a", "b")
    line.submit("c")
    claim = line.claimed("chunk")
    line.finish_chunking(claim, parts=[], failed=[ledger.FailedDocument(claim.versions[0].id, "empty", "nothing")])
    with pytest.raises(Conflict, match="failed; submit it again"):
        line.update("c", patch={"x": 1})
    line.remove("a")
    for _ in range(2):
        with pytest.raises(NotFound, match="there is no document"):
            line.update("a", patch={"x": 1})
        line.index()
    with pytest.raises(InvalidMetadata, match=r"'\$x'"):
        line.update("b", patch={"$x": 1})
    other = new_line(line.catalog, name="others")
    with pytest.raises(NotFound, match="there is no document"):
        ledger_update(other, line.document_id("b"))
    with pytest.raises(NotFound, match="there is no document"):
        ledger_update(line, DocumentId("doc_0"))


def ledger_update(line: Line, document_id: DocumentId) -> None:
    update_document(
        line.catalog,
        tenant=TENANT,
        collection_id=line.collection.id,
        generation_id=line.collection.generation.id,
        document_id=document_id,
        change=DocumentChange(patch={"x": 1}),
        now=line.now,
    )


# Chunks


def test_a_trim_makes_no_version_and_its_job_ends(line):
    serve(line, "a")
    job_id = line.trim("a", 0)
    assert listed(line) == {"a": "indexed"}
    (group,) = line.claim_index()
    (trim,) = group.versions
    assert (trim.action, trim.number, trim.details["ordinals"]) == ("trim", 0, [0])
    with line.catalog.write("publish") as connection:
        ledger.finish_indexing(connection, [group], version=7, now=line.now, trimmed={trim.id: 1})
    job = get_job(line.catalog, tenant=TENANT, job_id=job_id)
    assert (job.state, job.documents, job.token) == ("done", {"trimmed": 1}, (line.collection.generation.id, 7))
    served = [row for row in line.version_rows("state", "chunk_count") if row[0] == "indexed"]
    assert served == [("indexed", 0)]
    ledger.prune(line.catalog, now=line.now + KEEP_S + 1)
    assert line.states() == {"a": ["indexed"]}
    assert get_job(line.catalog, tenant=TENANT, job_id=job_id) == job


def test_a_trim_does_not_stop_a_version_that_is_on_its_way(line):
    serve(line, "a")
    line.submit("a", text="newer")
    line.chunk()
    line.trim("a", 0)
    line.index()
    line.run()
    assert line.states() == {"a": ["trimmed", "superseded", "indexed"]}
    assert line.submit("a", text="newer").unchanged == 1


def test_a_trim_of_a_document_that_is_gone_ends_all_the_same(line):
    serve(line, "a")
    line.trim("a", 0)
    line.remove("a")
    line.index()
    assert line.states() == {"a": ["trimmed", "superseded", "deleted"]}


# Expiry


def expiring(line: Line, *sources: str, at: float = 2_000.0) -> None:
    line.accept([document(source, "text", expires_at=at) for source in sources or "a"])
    line.run()


def claimed_expiry(line: Line) -> ledger.Claim | None:
    return ledger.claim_expiry(
        line.catalog, shard=0, owner="w", lease_s=LEASE_S, now=line.now, max_attempts=MAX_ATTEMPTS
    )


def test_what_has_expired_leaves_once_and_says_expired(line):
    expiring(line)
    line.submit("b")
    line.run()
    job_id = JobId(line.version_rows("job_id")[0][0])
    line.now = 1_999.0
    assert line.expire() == 0
    line.now = 2_000.0
    assert line.expire() == 1
    assert line.expire() == 0
    assert line.states() == {"a": ["expired"], "b": ["indexed"]}
    assert (listed(line), counted(line)) == ({"b": "indexed"}, {"indexed": 1})
    assert job_of(line, job_id) == {"expired": 1}
    assert line.remove("a").already_deleted == 1
    with pytest.raises(NotFound, match="has expired"):
        line.update("a", values={"expires_at": 9e9})
    assert line.accept([document("a", "text", expires_at=2_000.0)]).replaced == 0


def test_an_update_accepted_before_an_expiry_is_published_wins_over_it(line):
    expiring(line)
    line.now = 2_001.0
    ledger.open_expiries(line.catalog, now=line.now)
    claim = claimed_expiry(line)
    expired = ledger.read_expired(line.catalog, claim, now=line.now)
    assert len(expired) == 1
    line.update("a", values={"expires_at": 9e9})
    with pytest.raises(Conflict, match="changed before"), line.catalog.write("publish") as connection:
        ledger.finish_expiry(connection, claim, expired, now=line.now)
    line.index()
    assert ledger.read_expired(line.catalog, claim, now=line.now) == []
    assert line.states() == {"a": ["superseded", "indexed"]}


def test_a_newer_version_on_its_way_keeps_the_expired_one_until_it_is_there(line):
    expiring(line)
    line.now = 2_001.0
    line.accept([document("a", "newer")])
    assert line.expire() == 0
    line.run()
    assert line.states() == {"a": ["superseded", "indexed"]}


def test_an_expired_document_leaves_although_a_newer_version_of_it_failed(line):
    expiring(line)
    line.submit("a", text="newer")
    claim = line.claimed("chunk")
    line.finish_chunking(claim, parts=[], failed=[ledger.FailedDocument(claim.versions[0].id, "empty", "nothing")])
    line.now = 2_001.0
    assert line.expire() == 1
    assert line.states() == {"a": ["expired", "failed"]}


def test_a_generation_is_looked_at_once_a_minute_and_by_one_batch(line):
    expiring(line, "a")
    expiring(line, "b", at=2_010.0)
    line.now = 2_001.0
    assert ledger.open_expiries(line.catalog, now=line.now) == 1
    assert ledger.open_expiries(line.catalog, now=line.now) == 0
    assert line.expire() == 1
    line.now = 2_020.0
    assert ledger.open_expiries(line.catalog, now=line.now) == 0
    line.now = 2_062.0
    assert ledger.open_expiries(line.catalog, now=line.now) == 1
    assert line.expire() == 1
    with line.catalog.read() as connection:
        found = connection.execute(sa.select(batches.c.state).where(batches.c.stage == "expire")).all()
    assert found == [("done",)]


def test_many_that_expired_leave_in_slices_one_after_the_other(line, monkeypatch):
    monkeypatch.setattr("penstock.storage.ledger.expiry.AT_ONCE", 2)
    expiring(line, *"abcde")
    line.now = 2_001.0
    assert ledger.open_expiries(line.catalog, now=line.now) == 1
    for left in (3, 1, 0):
        claim = claimed_expiry(line)
        expired = ledger.read_expired(line.catalog, claim, now=line.now)
        with line.catalog.write("publish") as connection:
            ledger.finish_expiry(connection, claim, expired, now=line.now)
        with pytest.raises(Conflict), line.catalog.write("publish") as connection:
            ledger.finish_expiry(connection, claim, expired, now=line.now)
        assert sum(states == ["indexed"] for states in line.states().values()) == left
    assert claimed_expiry(line) is None
    assert set(listed(line)) == set()


def test_a_batch_of_expired_documents_that_goes_on_lets_other_generations_have_a_turn(line, monkeypatch):
    monkeypatch.setattr("penstock.storage.ledger.expiry.AT_ONCE", 2)
    other = new_line(line.catalog, name="other")
    expiring(line, *"abcde")
    expiring(other, "f")
    line.now = other.now = 2_001.0
    assert ledger.open_expiries(line.catalog, now=line.now) == 2
    worked: list[str] = []
    while (claim := claimed_expiry(line)) is not None:
        worked.append(claim.generation.id)
        line.now += 1
        expired = ledger.read_expired(line.catalog, claim, now=line.now)
        with line.catalog.write("publish") as connection:
            ledger.finish_expiry(connection, claim, expired, now=line.now)
    assert sorted(worked.count(one.collection.generation.id) for one in (line, other)) == [1, 3]
    assert other.collection.generation.id in worked[:2]


def test_each_publish_of_expired_documents_has_attempts_of_its_own(line, monkeypatch):
    """However many there are: those of one that goes on are not counted together."""
    monkeypatch.setattr("penstock.storage.ledger.expiry.AT_ONCE", 1)
    expiring(line, *"abcd")
    line.now = 2_001.0
    ledger.open_expiries(line.catalog, now=line.now)
    while (claim := claimed_expiry(line)) is not None:
        assert claim.attempt == 1
        expired = ledger.read_expired(line.catalog, claim, now=line.now)
        with line.catalog.write("publish") as connection:
            ledger.finish_expiry(connection, claim, expired, now=line.now)
    assert set(listed(line)) == set()


# At the same time


def asked(line: Line, dice: random.Random) -> JobId:
    """Ask anything of two of the documents."""
    some = dice.sample("abcde", 2)
    match dice.choice(["submit", "remove", "update", "trim"]):
        case "submit":
            ends_at = dice.choice([None, line.now - 1])
            return line.accept([document(source, str(dice.random()), expires_at=ends_at) for source in some]).job_id
        case "remove":
            return line.remove(*some).job_id
        case "update":
            return line.update(some[0], patch={"n": dice.random()}, values={"expires_at": None}).job_id
        case _:
            return line.trim(some[0], 0)


def test_rivals_and_the_writer_on_the_same_documents_never_wait_in_a_ring_nor_count_twice(postgres_catalog):
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    line = new_line(postgres_catalog)
    serve(line, *"abcde")
    stop = threading.Event()

    def rival(number: int) -> None:
        dice = random.Random(seed + number)
        for _ in range(25):
            with suppress(NotFound, Conflict):  # deleted, or without text, or over before it is cancelled
                job_id = asked(line, dice)
                if dice.random() < 0.3:
                    cancel(line, job_id)

    def work() -> None:
        while not stop.is_set():
            with suppress(Conflict):
                line.chunk()
                line.embed()
                line.index()
                line.expire()

    with ThreadPoolExecutor(5) as pool:
        worker = pool.submit(work)
        rivals = [pool.submit(rival, number) for number in range(4)]
        try:
            for one in rivals:
                one.result()
        finally:
            stop.set()
        worker.result()
    line.run()
    line.reconcile()

    with postgres_catalog.read() as connection:
        numbered = sa.select(documents.c.source, documents.c.highest, sa.func.max(versions.c.number), sa.func.count())
        numbered = numbered.join(versions, OF_DOCUMENT).where(versions.c.action != "trim")
        rows_found = connection.execute(numbered.group_by(documents.c.source, documents.c.highest)).all()
        served = sa.select(documents.c.source).join(versions, OF_DOCUMENT).where(versions.c.state == "indexed")
        indexed = set(connection.scalars(served))
        still_open = connection.scalars(sa.select(jobs.c.id).where(jobs.c.state == "running")).all()
    assert [(highest, highest) for _, highest, _, _ in rows_found] == [
        (most, count) for _, _, most, count in rows_found
    ]
    assert not {source for source, state in listed(line).items() if state == "cancelled"} & indexed
    assert still_open == []
    assert line.batch_states("index").count("done") == len(line.batch_states("index"))
