"""Dead documents say why they died, can be retried without their bytes being sent again, or are given up visibly."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.pipeline.filters import parse_filter
from penstock.storage import ledger
from penstock.storage.catalog.collections import create_collection
from penstock.storage.catalog.documents import DocumentInfo, get_document, list_documents
from penstock.storage.catalog.jobs import cancel_job, get_job
from penstock.storage.catalog.tables import PRIORITIES, batches, documents, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.collecting import collect_packs
from penstock.storage.errors import Conflict, NotFound
from penstock.storage.ids import TenantId
from penstock.storage.intake import revivals
from penstock.storage.intake.dead import DeadSelection, ids_of, list_dead, select_dead
from penstock.storage.intake.documents import Terms
from penstock.storage.intake.revivals import Revived, drop_documents, retry_documents
from penstock.storage.ledger.overview import dead_documents

from ..ledger_line import LEASE_S, MAX_ATTEMPTS, TENANT, Line, document, new_line, rows

LONG_AFTER = 2e12


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


def kill(line: Line, *sources: str, code: str = "truncated", error: str = "it ends early") -> None:
    """Let these queued documents fail at their first attempt, as a parser says it, and index the others."""
    line.form()
    for batch_id in line.send("chunk"):
        claim = line.claim(batch_id)
        assert claim is not None
        failed = [ledger.FailedDocument(one.id, code, error) for one in claim.versions if one.source in sources]
        line.finish_chunking(claim, failed=failed)
    line.run()


def of(line: Line, source: str) -> DocumentInfo:
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    return get_document(line.catalog, **place, document_id=line.document_id(source))


def retry(line: Line, *sources: str, **options: Any) -> Revived:
    ids = [line.document_id(source) for source in sources]
    place = {"tenant": line.tenant, "collection_id": line.collection.id}
    place["generation_id"] = line.collection.generation.id
    return retry_documents(line.catalog, line.objects, **place, document_ids=ids, now=line.now, **options)


def drop(line: Line, *sources: str, **options: Any) -> Revived:
    ids = [line.document_id(source) for source in sources]
    place = {"tenant": line.tenant, "collection_id": line.collection.id}
    place["generation_id"] = line.collection.generation.id
    return drop_documents(line.catalog, **place, document_ids=ids, now=line.now, **options)


def dead(line: Line, **wanted: Any) -> list[str]:
    """Return the sources of what is dead, of pages of two."""
    found, after = [], None
    while True:
        page = list_dead(
            line.catalog,
            tenant=TENANT,
            collection_id=line.collection.id,
            selection=DeadSelection(**wanted),
            after=after,
            limit=2,
        )
        found += [one.source for one in page.documents]
        if page.next_after is None:
            return found
        after = page.next_after


def test_a_document_that_was_never_read_tells_its_one_attempt(line):
    line.submit("a", "bad")
    line.now += 5
    kill(line, "bad")
    bad = of(line, "bad")
    assert (bad.state, bad.stage, bad.error_code, bad.error) == ("failed", "chunk", "truncated", "it ends early")
    assert (bad.attempts, bad.created_at) == (1, 1_000.0)
    assert bad.first_attempt_at == bad.last_attempt_at == bad.finished_at == 1_005.0
    good = of(line, "a")
    assert (good.attempts, good.first_attempt_at, good.last_attempt_at) == (None, None, None)


@pytest.mark.parametrize("stage", ["chunk", "embed", "index"])
def test_what_kills_its_workers_counts_its_attempts_in_company_and_alone(line, stage):
    line.submit("a", "bad", "c")
    last = began = None
    for _ in range(60):
        line.form()
        for name in ("chunk", "embed", "index"):
            held = claims(line, name)
            for claim in held:
                began = began or line.now
                if name == stage and any(one.source == "bad" for one in claim.versions):
                    last = line.now  # and the worker is gone
                else:
                    finish(line, claim)
        line.now += LEASE_S + 1
        line.reconcile()
        if not line.unfinished():
            break
    bad = of(line, "bad")
    assert (bad.state, bad.stage, bad.attempts) == ("failed", stage, 2 * MAX_ATTEMPTS)
    assert (bad.first_attempt_at, bad.last_attempt_at) == (began, last)
    assert bad.finished_at > bad.last_attempt_at
    assert line.states() == {"a": ["indexed"], "bad": ["failed"], "c": ["indexed"]}


def claims(line: Line, stage: str) -> list[Any]:
    if stage == "index":
        return list(line.claim_index(owner=f"writer at {line.now}"))
    return [claim for batch_id in line.send(stage) if (claim := line.claim(batch_id)) is not None]


def finish(line: Line, claim: Any) -> None:
    if isinstance(claim, ledger.IndexGroup):
        line.publish([claim])
    elif claim.stage == "chunk":
        line.finish_chunking(claim)
    else:
        line.finish_embedding(claim)


def test_a_refused_text_tells_the_attempts_of_its_batch(line):
    line.submit("a", "bad")
    line.chunk()
    line.retry(line.claimed("embed"))
    claim = line.claimed("embed")
    failures = [ledger.FailedDocument(one.id, "input_rejected", "no") for one in claim.versions if one.source == "bad"]
    ledger.fail_versions(line.catalog, failures=failures, stage="embed", now=line.now, tried=claim.tried)
    line.finish_embedding(claim)
    assert (of(line, "bad").attempts, of(line, "bad").first_attempt_at) == (2, line.now)


def test_a_retry_runs_from_the_stored_bytes_in_a_job_of_its_own_and_makes_no_version(line):
    accepted = line.submit("a", "bad")
    kill(line, "bad")
    before = line.version_rows("id", "number", "pack", "pack_offset", "content_hash")
    objects = sorted(one.name for one in line.objects.list("tenants/"))
    line.now += 10

    retried = retry(line, "bad")

    assert (retried.done, retried.sample, retried.refusals) == (1, [(line.document_id("bad"), "bad")], [])
    assert of(line, "bad").state == "queued"
    assert get_job(line.catalog, tenant=TENANT, job_id=retried.job_id).documents == {"queued": 1}
    line.run()
    assert line.states() == {"a": ["indexed"], "bad": ["indexed"]}
    assert line.version_rows("id", "number", "pack", "pack_offset", "content_hash") == before
    assert sorted(one.name for one in line.objects.list("tenants/")) == objects
    old = get_job(line.catalog, tenant=TENANT, job_id=accepted.job_id)
    new = get_job(line.catalog, tenant=TENANT, job_id=retried.job_id)
    assert (old.state, old.documents) == ("done", {"indexed": 1, "failed": 1})
    assert (new.state, new.documents) == ("done", {"indexed": 1})
    assert new.token == (line.collection.generation.id, 2)


def test_the_former_death_is_told_until_the_document_is_indexed(line):
    line.submit("bad")
    kill(line, "bad")
    died_at = line.now
    line.now += 10
    retry(line, "bad")
    waiting = of(line, "bad")
    assert (waiting.error, waiting.error_code, waiting.stage, waiting.attempts) == (None, None, None, None)
    assert (waiting.finished_at, waiting.first_attempt_at, waiting.last_attempt_at) == (None, None, None)
    told = dict(waiting.former_death)
    assert (told["stage"], told["error_code"], told["error"]) == ("chunk", "truncated", "it ends early")
    assert (told["attempts"], told["retries"]) == (1, 1)
    assert told["died_at"] <= died_at

    kill(line, "bad", code="empty", error="nothing in it")
    again = of(line, "bad")
    assert (again.state, again.error_code, again.former_death["error_code"]) == ("failed", "empty", "truncated")
    retry(line, "bad")
    assert (of(line, "bad").former_death["error_code"], of(line, "bad").former_death["retries"]) == ("empty", 2)
    line.run()
    assert (of(line, "bad").state, of(line, "bad").former_death) == ("indexed", None)


def test_retrying_and_dropping_twice_is_harmless_and_says_what_the_document_is(line):
    line.submit("a", "bad", "worse")
    kill(line, "bad", "worse")
    assert (retry(line, "bad").done, drop(line, "worse").done) == (1, 1)
    before = rows(line.catalog)
    for act in (retry, drop):
        again = act(line, "a", "bad", "worse")
        assert (again.done, again.job_id, again.refused) == (0, None, {"not_dead": 3})
        assert {one.source: one.reason for one in again.refusals} == {
            "a": "its newest version, 1, is indexed",
            "bad": "its newest version, 1, is queued",
            "worse": "its newest version, 1, is dropped",
        }
    assert rows(line.catalog) == before


def test_a_dry_run_says_the_same_and_changes_nothing(line):
    line.submit("a", "bad", "worse")
    kill(line, "bad", "worse")
    before = rows(line.catalog)
    for act in (retry, drop):
        tried = act(line, "a", "bad", "worse", dry_run=True)
        assert (tried.done, tried.job_id, tried.refused) == (2, None, {"not_dead": 1})
        assert rows(line.catalog) == before


def test_a_newer_version_wins_over_a_retry(line):
    line.submit("bad", text="old")
    kill(line, "bad")
    line.submit("bad", text="new")
    assert retry(line, "bad").refused == {"not_dead": 1}
    line.run()
    assert line.states() == {"bad": ["failed", "indexed"]}


def test_a_version_that_is_served_again_after_a_rollback_wins_too(line):
    line.submit("bad", text="old")
    kill(line, "bad")
    line.submit("bad", text="new")
    line.run()
    with line.catalog.write() as connection:  # as if the catalog still showed what failed
        connection.execute(sa.update(documents).values(newest=1))
    assert retry(line, "bad").refused == {"newer_version": 1}


def test_bytes_that_are_gone_are_told_and_the_others_are_retried(line):
    line.submit("gone")
    line.submit("here")
    kill(line, "gone", "here")
    (pack,) = {row[0] for row in line.version_rows("pack", "document_id") if row[1] == line.document_id("gone")}
    line.objects.delete(pack)
    retried = retry(line, "gone", "here")
    assert (retried.done, retried.refused) == (1, {"bytes_gone": 1})
    assert retried.refusals[0].reason == "its submitted bytes are not stored any more: submit it again"
    assert of(line, "gone").state == "failed"


def test_bytes_are_looked_for_while_others_may_write(line, monkeypatch):
    """A bucket is asked over the network, perhaps for seconds: on SQLite nobody else could accept anything."""
    line.submit("bad")
    kill(line, "bad")
    writing: list[str] = []
    looked_for: list[str] = []
    opened, usual = line.catalog.write, line.objects.missing

    @contextmanager
    def write(*what: str) -> Iterator[Any]:
        writing.append("retry")
        with opened(*what) as connection:
            yield connection
        writing.pop()

    def missing(names: Iterable[str]) -> list[str]:
        assert not writing
        asked = [*names]
        looked_for.extend(asked)
        return usual(asked)

    monkeypatch.setattr(line.catalog, "write", write)
    monkeypatch.setattr(line.objects, "missing", missing)
    assert retry(line, "bad").done == 1
    assert len(looked_for) == 1


@pytest.mark.parametrize("lost", [False, True])
def test_what_dies_again_between_the_look_and_the_retry_is_looked_for_too(line, monkeypatch, lost):
    line.submit("bad", text="old")
    kill(line, "bad")
    usual, asked = line.objects.missing, []

    def missing(names: Iterable[str]) -> list[str]:
        asked.append([*names])
        found = usual(asked[-1])
        if len(asked) == 1:
            monkeypatch.setattr(line.objects, "missing", usual)
            line.submit("bad", text="new")
            kill(line, "bad")
            monkeypatch.setattr(line.objects, "missing", missing)
            newest = line.version_rows("pack")[-1][0]
            if lost:
                line.objects.delete(newest)
        return found

    monkeypatch.setattr(line.objects, "missing", missing)
    retried = retry(line, "bad")
    assert (retried.done, retried.refused) == ((0, {"bytes_gone": 1}) if lost else (1, {}))
    assert len(asked) == 2
    monkeypatch.undo()
    assert line.states() == {"bad": ["failed", "failed" if lost else "queued"]}


def test_what_killed_its_worker_starts_again_alone(line):
    line.submit("a", "killer", "refused")
    kill(line, "refused")
    line.submit("killer", text="anew")
    with line.catalog.write() as connection:
        killer = versions.c.document_id == line.document_id("killer")
        connection.execute(sa.update(versions).where(killer, versions.c.state == "queued").values(state="failed"))
        connection.execute(sa.update(versions).where(killer).values(error_code="worker_lost"))
    retried = retry(line, "killer", "refused")
    assert retried.done == 2
    line.submit("b")
    line.form()
    held = [[one.source for one in claim.versions] for claim in claims(line, "chunk")]
    assert sorted(held) == [["killer"], ["refused", "b"]]


@pytest.mark.parametrize("code", ["worker_lost", "truncated"])
@pytest.mark.parametrize("priority", range(len(PRIORITIES)))
def test_what_is_retried_keeps_its_priority_alone_or_not(line, code, priority):
    line.accept([document("bad")], terms=Terms(priority))
    kill(line, "bad", code=code)
    assert retry(line, "bad").done == 1
    line.form()
    with line.catalog.read() as connection:
        open_ones = sa.select(batches.c.priority).where(batches.c.state == "ready")
        assert connection.scalars(open_ones).all() == [priority]


@pytest.mark.parametrize("kind", ["update", "delete"])
def test_a_change_and_a_delete_that_died_are_tried_again_by_the_writer(line, kind):
    line.submit("a")
    line.run()
    line.update("a", values={"title": "new"}) if kind == "update" else line.remove("a")
    for _ in range(2 * MAX_ATTEMPTS):
        for group in line.claim_index():
            line.retry(group, error="it broke")
    assert of(line, "a").state == "failed"
    assert retry(line, "a").done == 1
    assert of(line, "a").state == {"update": "indexing", "delete": "deleting"}[kind]
    line.run()
    assert line.states() == {"a": {"update": ["superseded", "indexed"], "delete": ["superseded", "deleted"]}[kind]}


def test_a_change_of_what_is_gone_is_refused(line):
    line.submit("a")
    line.run()
    line.update("a", values={"title": "new"})
    for _ in range(2 * MAX_ATTEMPTS):
        for group in line.claim_index():
            line.retry(group, error="it broke")
    with line.catalog.write() as connection:
        gone = sa.update(versions).where(versions.c.state == "indexed")
        connection.execute(gone.values(state="expired"))
    assert retry(line, "a").refused == {"nothing_to_describe": 1}


def test_a_retry_that_is_cancelled_leaves_what_is_served(line):
    line.submit("a", text="old")
    line.run()
    line.submit("a", text="bad")
    kill(line, "a")
    retried = retry(line, "a")
    cancel_job(line.catalog, tenant=TENANT, job_id=retried.job_id, now=line.now)
    assert (of(line, "a").state, of(line, "a").number) == ("indexed", 1)


def test_dropping_gives_the_bytes_back_and_shows_what_is_served(line):
    line.submit("a", text="old")
    line.run()
    line.submit("a", text="bad")
    line.submit("b", text="bad")
    kill(line, "a", "b")
    packs = len(list(line.objects.list("tenants/")))

    dropped = drop(line, "a", "b")

    assert (dropped.done, dropped.refused) == (2, {})
    assert line.states() == {"a": ["indexed", "dropped"], "b": ["dropped"]}
    assert (of(line, "a").state, of(line, "a").number) == ("indexed", 1)
    gone = of(line, "b")
    assert (gone.state, gone.error_code, gone.metadata, gone.size_bytes) == ("dropped", "truncated", {}, 0)
    listed = list_documents(line.catalog, tenant=TENANT, collection_id=line.collection.id, limit=10)
    assert [one.source for one in listed] == ["a"]
    assert dead(line) == []
    collect_packs(line.catalog, line.objects, tenant=TENANT, now=LONG_AFTER)
    assert len(list(line.objects.list("tenants/"))) == packs - 2
    assert line.submit("a", text="new").documents[0].number == 3


def test_what_was_dropped_is_forgotten_later_with_its_document(line):
    line.submit("a")
    kill(line, "a")
    drop(line, "a")
    job = line.version_rows("job_id")[0][0]
    ledger.prune(line.catalog, now=line.now + 8 * 86_400)
    ledger.prune(line.catalog, now=line.now + 8 * 86_400)
    assert line.states() == {}
    assert get_job(line.catalog, tenant=TENANT, job_id=job).documents == {"dropped": 1}


def test_dead_documents_are_found_by_job_code_stage_and_filter(line):
    first = line.accept([document("a", metadata={"lang": "en", "n": 1}), document("b", metadata={"lang": "fr"})])
    kill(line, "a", "b")
    line.accept([document("c", metadata={"lang": "en", "n": 2}), document("d", title="Pears"), document("e")])
    kill(line, "c", "d", code="empty")
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    wanted: list[tuple[dict[str, Any], list[str]]] = [
        ({}, ["a", "b", "c", "d"]),
        ({"job_id": first.job_id}, ["a", "b"]),
        ({"error_code": "empty"}, ["c", "d"]),
        ({"stage": "chunk"}, ["a", "b", "c", "d"]),
        ({"stage": "embed"}, []),
        ({"filter": parse_filter("lang=en")}, ["a", "c"]),
        ({"filter": parse_filter("lang=en,n>1")}, ["c"]),
        ({"filter": parse_filter("$title=Pears")}, ["d"]),
        ({"filter": parse_filter({"type": "exists", "key": "lang", "value": False})}, ["d"]),
        ({"filter": parse_filter("lang=en"), "error_code": "truncated"}, ["a"]),
    ]
    for asked, sources in wanted:
        assert dead(line, **asked) == sources
        found = ids_of(line.catalog, **place, sources=sources)
        assert select_dead(line.catalog, **place, selection=DeadSelection(**asked)) == sorted(found.values())


def test_the_dead_are_counted_whatever_they_died_of_until_they_are_retried_dropped_or_submitted_anew(line):
    line.submit("a", "b")
    kill(line, "a", "b")
    line.submit("c")
    line.form()
    for _ in range(MAX_ATTEMPTS):
        (batch,) = line.send("chunk")
        line.claim(batch)
        line.now += LEASE_S + 1
        line.reconcile()
    assert dead(line) == ["a", "b", "c"]
    assert dead_documents(line.catalog) == {"chunk": 3, "embed": 0, "index": 0}
    line.submit("a", text="another text")
    drop(line, "b")
    retry(line, "c")
    assert dead_documents(line.catalog) == {"chunk": 0, "embed": 0, "index": 0}


def test_a_page_ends_before_a_filter_has_looked_at_everything(line, monkeypatch):
    monkeypatch.setattr("penstock.storage.intake.dead._LOOKED_AT", 4)
    monkeypatch.setattr("penstock.storage.intake.dead._AT_ONCE", 2)
    line.accept([document(f"s{number}", metadata={"n": number}) for number in range(9)])
    kill(line, *(f"s{number}" for number in range(9)))
    assert dead(line, filter=parse_filter("n=8")) == ["s8"]


def test_many_are_retried_in_slices_of_one_job(line, monkeypatch):
    monkeypatch.setattr(revivals, "AT_ONCE", 2)
    line.submit(*"abcde")
    kill(line, *"abcde")
    opened, usual = [], line.catalog.write
    monkeypatch.setattr(line.catalog, "write", lambda *what: opened.append(what) or usual(*what))
    retried = retry(line, *"abcde")
    assert opened == [("retry",)] * 3
    assert (retried.done, get_job(line.catalog, tenant=TENANT, job_id=retried.job_id).documents) == (5, {"queued": 5})


def test_a_retry_that_dies_between_two_slices_is_done_by_the_same_call_again(line, monkeypatch):
    monkeypatch.setattr(revivals, "AT_ONCE", 2)
    line.submit(*"abc")
    kill(line, *"abc")
    usual, calls = line.catalog.write, []

    def write(what: str) -> Any:
        calls.append(what)
        if len(calls) == 2:
            raise RuntimeError("the power went out")
        return usual(what)

    monkeypatch.setattr(line.catalog, "write", write)
    with pytest.raises(RuntimeError):
        retry(line, *"abc")
    again = retry(line, *"abc")
    assert (again.done, again.refused) == (1, {"not_dead": 2})


def test_a_retry_whose_job_is_cancelled_between_two_slices_says_so_and_leaves_the_rest_dead(line, monkeypatch):
    monkeypatch.setattr(revivals, "AT_ONCE", 2)
    line.submit(*"abc")
    kill(line, *"abc")
    usual, begun = revivals._start_again, []

    def begin(*given: Any, **options: Any) -> None:
        usual(*given, **options)
        begun.append(options["job_id"])

    def write(*what: str) -> Any:
        if begun and what == ("retry",):
            cancel_job(line.catalog, tenant=TENANT, job_id=begun.pop(), now=line.now)
        return opened(*what)

    opened = line.catalog.write
    monkeypatch.setattr(revivals, "_start_again", begin)
    monkeypatch.setattr(line.catalog, "write", write)
    with pytest.raises(Conflict, match="was cancelled meanwhile: retry those that are still dead again"):
        retry(line, *"abc")
    assert sorted(of(line, source).state for source in "abc") == ["cancelled", "cancelled", "failed"]


def test_what_another_tenant_has_is_not_found_and_stays_dead(line):
    other = TenantId("other")
    create_tenant(line.catalog, other, now=1.0)
    theirs = new_line(line.catalog, tenant=other)
    theirs.submit("secret")
    kill(theirs, "secret")
    secret = theirs.document_id("secret")
    mine = {"tenant": TENANT, "collection_id": line.collection.id, "generation_id": line.collection.generation.id}
    before = rows(line.catalog)
    for act in acts(line):
        wrong, absent = (act(**mine, document_ids=[name], now=2.0) for name in (secret, "doc_nothing"))
        assert (wrong.done, wrong.refused) == (absent.done, absent.refused) == (0, {"not_found": 1})
        with pytest.raises(NotFound):
            act(**{**mine, "collection_id": theirs.collection.id}, document_ids=[secret], now=2.0)
    assert dead(line) == []
    assert ids_of(line.catalog, tenant=TENANT, collection_id=theirs.collection.id, sources=["secret"]) == {}
    with pytest.raises(NotFound):
        select_dead(line.catalog, tenant=TENANT, collection_id=theirs.collection.id, selection=DeadSelection())
    assert rows(line.catalog) == before


def acts(line: Line) -> list[Callable[..., Revived]]:
    return [
        lambda **asked: retry_documents(line.catalog, line.objects, **asked),
        lambda **asked: drop_documents(line.catalog, **asked),
    ]


def test_names_that_no_catalog_can_hold_are_not_found(line):
    place = {"tenant": TENANT, "collection_id": line.collection.id}
    assert ids_of(line.catalog, **place, sources=["a\0b", "\ud800"]) == {}


def test_a_retry_goes_to_the_generation_that_is_active(line):
    line.submit("a")
    kill(line, "a")
    other = create_collection(
        line.catalog,
        tenant=TENANT,
        name="other",
        model="hash",
        dimensions=8,
        metric="cosine",
        chunking={},
        shards=1,
        now=1.0,
    )
    with pytest.raises(NotFound, match="no generation"):
        retry_documents(
            line.catalog,
            line.objects,
            tenant=TENANT,
            collection_id=line.collection.id,
            generation_id=other.generation.id,
            document_ids=[line.document_id("a")],
            now=2.0,
        )


def test_the_bytes_of_the_dead_stay_for_a_retry_and_go_when_they_are_long_dead(line):
    line.submit("bad")
    kill(line, "bad")
    line.submit("worse")
    kill(line, "worse")
    line.now += 20 * 86_400
    retry(line, "worse")
    kill(line, "worse")

    def pass_by() -> int:
        released = ledger.release_dead_bytes(line.catalog, now=line.now, keep_s=30 * 86_400)
        ledger.prune(line.catalog, now=line.now)
        collect_packs(line.catalog, line.objects, tenant=TENANT, now=LONG_AFTER)
        return released

    assert pass_by() == 0
    line.now += 20 * 86_400
    assert (pass_by(), pass_by()) == (1, 0)
    assert [(one.source, one.state, one.error) for one in (of(line, "bad"), of(line, "worse"))] == [
        ("bad", "failed", "it ends early"),
        ("worse", "failed", "it ends early"),
    ]
    retried = retry(line, "bad", "worse")
    assert (retried.done, retried.refused) == (1, {"bytes_gone": 1})
    line.run()
    assert line.states() == {"bad": ["failed"], "worse": ["indexed"]}
