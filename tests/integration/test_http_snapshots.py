"""The versions of a collection over HTTP, with the client and on the command line."""

import json
import threading
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.api.cli.exits import report
from penstock.client import NewDocument
from penstock.storage import ledger
from penstock.storage.catalog.retention import Retention, expire_versions
from penstock.storage.catalog.tables import batches
from penstock.storage.ids import TenantId
from penstock.storage.publishing.publisher import Publisher
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.segments.differences import Comparison
from penstock.workers.liveness import Liveness
from penstock.workers.search import Searcher

from ..http_service import KEY, Service, running_service

FOREVER = 1e12


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("snapshots")) as running:
        yield running


@pytest.fixture
def books(service: Service, request):
    """A client and a collection with three versions: a and b; a again and c; b with another text."""
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    with service.penstock() as penstock:
        penstock.create_collection(name)
        for texts in ({"a": "apples", "b": "beeches"}, {"a": "apricots", "c": "cedars"}, {"b": "birches"}):
            penstock.submit(name, [NewDocument(source=source, text=text) for source, text in texts.items()])
            service.index()
        yield penstock, name


@pytest.fixture
def run(service: Service, monkeypatch, tmp_path, capsys):
    """Run a command of the command line in this process; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    for variable, value in (("PENSTOCK_URL", service.url), ("PENSTOCK_API_KEY", KEY)):
        monkeypatch.setenv(variable, value)

    def ran(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words), standalone_mode=False)
        if result.exception is not None:
            capsys.readouterr()
            assert report(result.exception, as_json="--json" in words) == code
            return "".join(capsys.readouterr())
        assert code == 0, result.output
        return result.output

    return ran


def found(result) -> list[str]:
    return sorted(hit.text for hit in result.hits)


def test_versions_are_listed_newest_first_page_by_page(books):
    penstock, name = books
    listed = penstock.snapshots(name)
    assert [(one.version, one.chunks, one.current) for one in listed.data] == [
        (3, 3, True),
        (2, 3, False),
        (1, 2, False),
    ]
    assert [one.operation for one in listed.data] == ["publish"] * 3
    assert listed.data[1].followed_at == listed.data[0].created_at
    assert listed.data[0].token == penstock.collection(name).token
    first = penstock.snapshots(name, limit=2)
    assert (first.has_more, first.last_version) == (True, 2)
    rest = penstock.snapshots(name, before=first.last_version)
    assert [one.version for one in rest.data] == [1]
    assert not rest.has_more


def test_a_version_is_shown_by_number_tag_time_and_as_the_current_one(books):
    penstock, name = books
    second = penstock.snapshots(name).data[1]
    penstock.tag(name, 2, "release")
    iso = datetime.fromtimestamp(second.created_at + 1e-6, UTC).isoformat()
    for named in (2, "2", "release", iso):
        shown = penstock.snapshot(name, named)
        assert (shown.version, shown.tags, sum(part.chunks for part in shown.parts)) == (2, ["release"], 3)
    assert penstock.snapshot(name, "current").version == 3


def test_two_versions_are_compared_document_by_document(books):
    penstock, name = books
    changes = penstock.diff(name, 1)
    assert (changes.before, changes.after, changes.added, changes.changed, changes.removed) == (1, 3, 1, 2, 0)
    told = {one.source: (one.change, one.version_before, one.version_after) for one in changes.documents}
    assert told == {"a": ("changed", 1, 2), "b": ("changed", 1, 2), "c": ("added", None, 1)}
    assert penstock.diff(name, 3, 1).removed == 1
    assert penstock.diff(name, 0, 1).added == 2
    page = penstock.diff(name, 1, limit=2)
    assert (len(page.documents), page.has_more, page.added) == (2, True, 1)
    rest = penstock.diff(name, 1, after_id=page.last_id)
    assert {one.id for one in (*page.documents, *rest.documents)} == {one.id for one in changes.documents}
    assert len(rest.documents) == 1


def test_what_differs_is_counted_once_however_many_pages_are_asked_for(books, service, monkeypatch):
    penstock, name = books
    counted = []
    count = Comparison.counts
    monkeypatch.setattr(Comparison, "counts", lambda comparison: counted.append(1) or count(comparison))
    pages = [penstock.diff(name, 1, 3, limit=1)]
    while pages[-1].has_more:
        pages.append(penstock.diff(name, 1, 3, limit=1, after_id=pages[-1].last_id))
    assert len(counted) == 1
    assert sorted(one.source for page in pages for one in page.documents) == ["a", "b", "c"]
    assert {(page.added, page.changed, page.removed) for page in pages} == {(1, 2, 0)}
    assert [one.id for one in penstock.diff(name, 1, 3).documents] == sorted(
        one.id for page in pages for one in page.documents
    )
    assert penstock.diff(name, 3, 1).added == 0
    assert len(counted) == 2


def test_past_versions_are_searched_by_number_tag_and_time(books, service):
    penstock, name = books
    penstock.tag(name, 1, "first")
    by_version = {one.version: one for one in penstock.snapshots(name).data}
    assert found(penstock.search(name, "trees")) == ["apricots", "birches", "cedars"]
    old = penstock.search(name, "trees", version=1)
    assert (found(old), old.version) == (["apples", "beeches"], 1)
    assert found(penstock.search(name, "trees", tag="first")) == ["apples", "beeches"]
    second = penstock.search(name, "trees", as_of=by_version[2].created_at)
    assert (found(second), second.version) == (["apricots", "beeches", "cedars"], 2)
    iso = datetime.fromtimestamp(by_version[3].created_at - 1e-3, UTC).isoformat().replace("+00:00", "Z")
    assert penstock.search(name, "trees", as_of=iso).version == 2
    before = penstock.search(name, "trees", as_of="2001-01-01")
    assert (found(before), before.version) == ([], 0)
    assert penstock.search(name, "trees", version=0).version == 0


def _times(value: float) -> dict[str, float]:
    return dict.fromkeys(("embedding_ms", "waiting_ms", "searching_ms"), value)


def test_past_versions_are_searched_over_the_queue_and_explained_as_over_http(books, service):
    penstock, name = books
    penstock.tag(name, 1, "first")
    searcher = Searcher(service.settings, liveness=Liveness())
    searcher.open()
    try:
        ask = {"tenant": "default", "collection": name, "query": "trees"}
        for wanted in ({"version": 1}, {"tag": "first"}, {"as_of": penstock.snapshot(name, 1).created_at}):
            answer = searcher.search(**ask, **wanted)
            assert sorted(hit["text"] for hit in answer["hits"]) == ["apples", "beeches"]
        told = json.loads(json.dumps(searcher.search(**ask, version=1, explain=True)))["explain"]
        by_http = penstock.search(name, "trees", version=1, explain=True).explain
        assert told["segments"], "there is something to compare"
        assert {**told, **_times(0)} == {**by_http, **_times(0)}
        assert min(told[part] for part in _times(0)) >= 0
        assert searcher.search(**ask, version=9)["error"]["code"] == "version_not_kept"
        assert searcher.search(**ask, version=1, tag="first")["error"]["code"] == "invalid_query"
    finally:
        searcher.close()


def test_as_of_finds_what_was_not_expired_then(service):
    with service.penstock() as penstock:
        penstock.create_collection("ends")
        now = service.components.clock()
        penstock.submit("ends", [NewDocument(source="a", text="short", expires_at=now + 0.5)])
        service.index()
        at = penstock.snapshots("ends").data[0].created_at
        ends_at = now + 0.5
        penstock.submit("ends", [NewDocument(source="b", text="long")])
        service.index()
        while service.components.clock() < ends_at:
            pass
        assert found(penstock.search("ends", "x", version=1)) == []  # expired by now
        if at < ends_at:
            assert found(penstock.search("ends", "x", as_of=at)) == ["short"]
        assert found(penstock.search("ends", "x")) == ["long"]


def test_a_tag_moves_only_when_asked_and_keeps_its_version(books, service):
    penstock, name = books
    penstock.tag(name, 1, "release")
    with pytest.raises(client.Conflict, match="'release' names version 1 already"):
        penstock.tag(name, 2, "release")
    penstock.tag(name, 2, "release", move=True)
    expire(service)
    assert [one.version for one in penstock.snapshots(name).data] == [3, 2]
    penstock.untag(name, "release")
    expire(service)
    assert [one.version for one in penstock.snapshots(name).data] == [3]


def test_a_version_past_retention_says_which_there_are(books, service):
    penstock, name = books
    penstock.tag(name, 1, "release")
    expire(service)
    told = "is not kept: there are versions 1, 3, and the tags release \\(1\\)"
    at = penstock.snapshot(name, 3).created_at - 1e-3
    for ask in (
        lambda: penstock.search(name, "x", version=2),
        lambda: penstock.search(name, "x", as_of=at),
        lambda: penstock.search(name, "x", tag="gone"),
        lambda: penstock.snapshot(name, 2),
        lambda: penstock.diff(name, 2),
        lambda: penstock.diff(name, 1, 2),
        lambda: penstock.tag(name, 2, "late"),
    ):
        with pytest.raises(client.NotFound, match=told) as refused:
            ask()
        assert refused.value.code == "version_not_kept"
    assert found(penstock.search(name, "trees", tag="release")) == ["apples", "beeches"]


@pytest.mark.parametrize(
    ("method", "path", "asked", "param"),
    [
        ("GET", "snapshots/2", None, "snapshot"),
        ("GET", "snapshots/2/diff", None, "snapshot"),
        ("GET", "snapshots/1/diff?to=2", None, "to"),
        ("POST", "snapshots/2/rollback", None, "snapshot"),
        ("POST", "snapshots/2/fork", {"name": "copy"}, "snapshot"),
        ("PUT", "snapshots/2/tags/late", None, "snapshot"),
        ("POST", "search", {"query": "x", "version": 2}, "version"),
        ("POST", "search", {"query": "x", "tag": "gone"}, "tag"),
    ],
)
def test_a_version_past_retention_is_refused_by_the_name_of_what_asked_for_it(
    books, service, method, path, asked, param
):
    penstock, name = books
    penstock.tag(name, 1, "release")
    expire(service)
    answer = service.http.request(method, f"/v1/tenants/default/collections/{name}/{path}", json=asked)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "version_not_kept", param)


@pytest.mark.parametrize(("tag", "status"), [("release", 409), ("Release", 400)])
def test_a_tag_that_cannot_be_given_is_refused_as_the_tag(books, service, tag, status):
    penstock, name = books
    penstock.tag(name, 1, "release")
    answer = service.http.put(f"/v1/tenants/default/collections/{name}/snapshots/2/tags/{tag}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, "tag")


def expire(service: Service) -> None:
    with service.components.catalog.write() as connection:
        expire_versions(connection, tenant=TenantId("default"), now=FOREVER, retention=Retention(1, 0.0))


@pytest.mark.parametrize(
    ("asked", "param", "told"),
    [
        ({"version": 1, "tag": "a"}, "tag", "version and tag exclude each other"),
        ({"as_of": "yesterday"}, "as_of", "'yesterday' is no date or time"),
        ({"as_of": "9999-01-01"}, "as_of", "still to come"),
        ({"version": -1}, "version", "greater than or equal to 0"),
        ({"version": 10**19}, "version", "less than or equal to"),
        ({"tag": "\x00"}, "tag", "is no tag"),
    ],
)
def test_a_search_that_names_no_version_is_refused(books, service, asked, param, told):
    _, name = books
    path = f"/v1/tenants/default/collections/{name}/search"
    answer = service.http.post(path, json={"query": "x", **asked})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"].startswith(param)
    assert told in error["message"]


@pytest.mark.parametrize("snapshot", ["Release", "-1", "2026-13-01", "a b", "9999-01-01"])
def test_a_path_that_names_no_version_is_refused(books, service, snapshot):
    _, name = books
    answer = service.http.get(f"/v1/tenants/default/collections/{name}/snapshots/{snapshot}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "snapshot")


def test_a_search_cannot_wait_for_the_newest_version_and_ask_for_another(books):
    penstock, name = books
    token = penstock.collection(name).token
    with pytest.raises(client.Invalid, match="version and min_token exclude each other"):
        penstock.search(name, "x", version=1, min_token=token)


def test_tags_that_are_not_allowed_or_not_there_are_refused(books, service):
    penstock, name = books
    with pytest.raises(client.Invalid, match="tag name 'Release' is not allowed"):
        penstock.tag(name, 1, "Release")
    with pytest.raises(client.Invalid, match="means the newest version"):
        penstock.tag(name, 1, "current")
    path = f"/v1/tenants/default/collections/{name}/snapshots/1/tags/other"
    answer = service.http.delete(path)
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "version 1 has no tag 'other'")
    with pytest.raises(client.Invalid, match="'current' is not allowed: it means the newest version"):
        penstock.untag(name, "current")
    with pytest.raises(client.Invalid, match="'3' is not allowed: it must begin with a letter"):
        penstock.untag(name, "3")
    with pytest.raises(client.NotFound, match="a version with the tag 'nosuch' is not kept"):
        penstock.untag(name, "nosuch")


def test_a_collection_without_a_version_has_none_to_show(service):
    with service.penstock() as penstock:
        penstock.create_collection("empty")
        assert penstock.snapshots("empty").data == []
        assert penstock.search("empty", "x", as_of="2001-01-01").hits == []
        with pytest.raises(client.NotFound, match="'empty' has no version yet: submit documents"):
            penstock.snapshot("empty", "current")


def test_the_command_line_lists_shows_compares_and_tags(books, run):
    _, name = books
    assert "version 1 of" in run("snapshots", "tag", "1", "release", "-c", name)
    listed = json.loads(run("snapshots", "list", "-c", name, "--json"))
    assert [one["version"] for one in listed["data"]] == [3, 2, 1]
    assert "release" in run("snapshots", "list", "-c", name)
    assert "older versions are kept too: --before 3" in run("snapshots", "list", "-c", name, "--limit", "1")
    older = json.loads(run("snapshots", "list", "-c", name, "--before", "3", "--json"))
    assert [one["version"] for one in older["data"]] == [2, 1]
    assert "keeps no version before 1" in run("snapshots", "list", "-c", name, "--before", "1")
    assert json.loads(run("snapshots", "show", "release", "-c", name, "--json"))["version"] == 1
    assert "the current one" in run("snapshots", "show", "-c", name)
    assert "version 1 → 3: 1 added, 2 changed" in run("snapshots", "diff", "release", "-c", name)
    assert json.loads(run("snapshots", "diff", "1", "2", "-c", name, "--json"))["added"] == 1
    assert "no document differs" in run("snapshots", "diff", "3", "-c", name)
    first = json.loads(run("snapshots", "diff", "1", "-c", name, "--limit", "2", "--json"))
    told = run("snapshots", "diff", "1", "-c", name, "--limit", "2")
    assert f"2 documents of them: --after {first['last_id']}" in " ".join(told.split())
    rest = json.loads(run("snapshots", "diff", "1", "-c", name, "--after", first["last_id"], "--json"))
    assert (len(rest["documents"]), rest["has_more"]) == (1, False)
    assert run("snapshots", "untag", "release", "-c", name).strip() == "tag 'release' is removed"
    assert "version_not_kept" in run("snapshots", "show", "release", "-c", name, "--json", code=1)


def test_the_command_line_searches_a_past_version(books, run):
    penstock, name = books
    penstock.tag(name, 1, "first")
    made = penstock.snapshot(name, 2).created_at
    for words in (["--version", "1"], ["--tag", "first"], ["--as-of", str(made - 1e-3)]):
        result = json.loads(run("search", "trees", "-c", name, "--json", *words))
        assert sorted(hit["text"] for hit in result["hits"]) == ["apples", "beeches"], words


def test_a_version_is_forked_into_a_collection_of_its_own(books, service):
    penstock, name = books
    penstock.tag(name, 1, "first")
    made = penstock.fork(name, f"{name}-copy", snapshot="first")
    assert (made.name, made.version, made.documents, made.chunks) == (f"{name}-copy", 1, {"indexed": 2}, 2)
    assert found(penstock.search(made.name, "trees", min_token=made.token)) == ["apples", "beeches"]
    hit = penstock.search(made.name, "trees").hits[0]
    assert penstock.document(made.name, hit.document.id).source == hit.document.source
    (first,) = penstock.snapshots(made.name).data
    assert (first.operation, first.origin.version) == ("fork", 1)
    with pytest.raises(client.Conflict, match="exists already") as refused:
        penstock.fork(name, made.name)
    assert refused.value.param == "name"
    with pytest.raises(client.NotFound, match="is not kept"):
        penstock.fork(name, "other-copy", snapshot=99)
    with pytest.raises(client.Invalid, match="collection name 'Not allowed'"):
        penstock.fork(name, "Not allowed")


def test_the_command_line_forks(books, run):
    penstock, name = books
    made = json.loads(run("collections", "fork", name, f"{name}-cli", "--version", "2", "--json"))
    assert (made["name"], made["chunks"]) == (f"{name}-cli", 3)
    assert found(penstock.search(made["name"], "trees")) == ["apricots", "beeches", "cedars"]
    assert "exists already" in run("collections", "fork", name, f"{name}-cli", code=1)


def carry_out(service: Service) -> None:
    """Do what the index role does with a rollback."""
    components = service.components
    lease = {"shard": 0, "owner": "tests", "lease_s": 60.0, "now": components.clock(), "max_attempts": 3}
    claim = ledger.claim_rollback(components.catalog, **lease)
    assert claim is not None
    version = claim.details["version"]
    rollback = plan_rollback(components.catalog, components.objects, claim.generation.id, version=version)

    def finish(connection, published):
        told = {"manifest": published.manifest, "changed": published.changed, "now": components.clock()}
        ledger.finish_rollback(connection, claim, rollback, **told)

    Publisher(components.catalog, components.objects).publish(
        claim.generation.id, epoch=service.epoch, shard=0, rollback=rollback, in_transaction=finish
    )


def test_a_rollback_is_accepted_carried_out_by_the_writer_and_waited_for(books, service):
    penstock, name = books
    answer = service.http.post(f"/v1/tenants/default/collections/{name}/snapshots/1/rollback")
    assert answer.status_code == 202
    asked = penstock.roll_back(name, 1)
    assert answer.headers["Location"].endswith(f"/rollbacks/{asked.id}")
    assert (asked.state, asked.version, asked.token) == ("waiting", 1, None)
    with pytest.raises(client.Conflict, match="a rollback to version 1 is under way"):
        penstock.roll_back(name, 2)
    with pytest.raises(client.Busy, match="still waits after 0 s"):
        penstock.wait_for_rollback(name, asked.id, timeout_s=0)
    threading.Thread(target=carry_out, args=[service]).start()
    ended = penstock.wait_for_rollback(name, asked.id, timeout_s=30)
    assert (ended.state, ended.published) == ("done", 4)
    result = penstock.search(name, "trees", min_token=ended.token)
    assert (found(result), result.version) == (["apples", "beeches"], 4)
    assert {one.source: one.version for one in penstock.documents(name).data} == {"a": 1, "b": 1}
    newest = penstock.snapshot(name, "current")
    assert (newest.operation, newest.origin.version) == ("rollback", 1)
    assert penstock.diff(name, 1).documents == []
    with pytest.raises(client.NotFound, match="no rollback 'batch_1'"):
        penstock.rollback(name, "batch_1")


def test_a_rollback_to_a_version_that_is_not_kept_is_refused(books):
    penstock, name = books
    with pytest.raises(client.NotFound, match="there are versions 1 to 3"):
        penstock.roll_back(name, 4)
    with pytest.raises(client.NotFound, match="had no version yet at 2001-01-01: list the versions"):
        penstock.roll_back(name, "2001-01-01")
    with pytest.raises(client.NotFound, match="has no version 0, which stands for the time before its first"):
        penstock.roll_back(name, 0)


def test_the_command_line_rolls_back(books, run, service):
    penstock, name = books
    assert "--json asks nobody" in run("snapshots", "rollback", "1", "-c", name, "--json", code=2)
    asked = json.loads(run("snapshots", "rollback", "1", "-c", name, "--yes", "--no-wait", "--json"))
    assert asked["state"] == "waiting"
    told = run("snapshots", "rollback", "1", "-c", name, "--yes", "--timeout", "0", code=5)
    assert "still waits" in told
    assert "the same command again waits on" in told
    carry_out(service)
    assert penstock.rollback(name, asked["id"]).state == "done"
    threading.Thread(target=_when_asked, args=[service]).start()
    assert "serves version 3 again, as version 5" in run("snapshots", "rollback", "3", "-c", name, "--yes")
    assert "rollback to 3" in run("snapshots", "list", "-c", name)
    threading.Thread(target=_when_asked, args=[service]).start()
    told = " ".join(run("snapshots", "rollback", "current", "-c", name, "--yes").split())
    assert told == f"collection {name!r} serves version 5 already: no new one was made"
    assert "has no version 0" in run("snapshots", "rollback", "0", "-c", name, code=1), "nobody is asked before"


def _when_asked(service: Service) -> None:
    waiting = sa.select(batches.c.id).where(batches.c.stage == "rollback", batches.c.state == "ready")
    while True:
        with service.components.catalog.read() as connection:
            if connection.scalar(waiting):
                break
    carry_out(service)


def test_a_rollback_that_failed_says_why(books, run, service):
    penstock, name = books
    asked = penstock.roll_back(name, 1)
    lease = {"shard": 0, "owner": "tests", "lease_s": 60.0, "now": service.components.clock(), "max_attempts": 3}
    claim = ledger.claim_rollback(service.components.catalog, **lease)
    ledger.fail_rollback(service.components.catalog, claim, error="a file is gone", now=1.0)
    failed = penstock.wait_for_rollback(name, asked.id)
    assert (failed.state, failed.error, failed.published) == ("failed", "a file is gone", None)


def test_a_collection_keeps_versions_as_its_owner_says(books, service, run):
    penstock, name = books
    assert (penstock.collection(name).keep_versions, penstock.collection(name).keep_s) == (None, None)
    assert penstock.change_retention(name, keep_versions=2).keep_versions == 2
    expire(service)
    assert [one.version for one in penstock.snapshots(name).data] == [3, 2]
    changed = penstock.change_retention(name, keep_s=60)
    assert (changed.keep_versions, changed.keep_s) == (2, 60.0)
    with pytest.raises(client.Invalid, match="keep_versions"):
        penstock.change_retention(name, keep_versions=0)
    answer = service.http.patch(f"/v1/tenants/default/collections/{name}", json={"keep": 1})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "keep")
    assert json.loads(run("collections", "keep", name, "--versions", "5", "--json"))["keep_versions"] == 5
    assert "5 versions, others for 1 min" in run("collections", "show", name)
    assert "5 versions, no others" in run("collections", "keep", name, "--seconds", "0")
    assert "give --versions or --seconds" in run("collections", "keep", name, code=2)
    kept = json.loads(run("collections", "keep", name, "--default", "--json"))
    assert (kept["keep_versions"], kept["keep_s"]) == (None, None)
