"""The command line against a real server without workers: what it does when work waits, is interrupted, or goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.cli.exits import report
from penstock.client import NewDocument
from penstock.client.wire import Hit
from penstock.workers.liveness import Liveness
from penstock.workers.search import Searcher

from ..http_service import KEY, Service, running_service


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "notes"
    made.mkdir()
    for number in range(4):
        (made / f"{number}.txt").write_text(f"Note {number} about penstocks and weirs.")
    return made


@pytest.fixture
def environment(service: Service, tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return clean | {"PENSTOCK_URL": service.url, "PENSTOCK_API_KEY": KEY, "PENSTOCK_DATA_DIR": str(tmp_path / "none")}


@pytest.fixture
def penstock(environment, tmp_path, monkeypatch, capsys):
    """Run a command in this process, which saves seconds, and end it as `main` does."""
    monkeypatch.chdir(tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, code: int = 0) -> Ended:
        capsys.readouterr()
        result = CliRunner().invoke(app, list(words))
        ended = Ended(result.exit_code, result.stdout, result.stderr)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            status = report(result.exception, as_json=False)
            ended = Ended(status, result.stdout, result.stderr + capsys.readouterr().err)
        assert ended.code == code, ended
        return ended

    return run


def test_a_webhook_that_is_refused_leaves_nothing_behind_and_one_that_is_taken_is_told_of_what_is_done(
    penstock, service, folder
):
    ingest = ("ingest", "notes", "-c", "hooked", "--tenant", "other", "--no-wait", "--webhook")
    with service.penstock("other") as other:
        assert "no public address" in penstock(*ingest, "https://127.0.0.1/hook", code=2).stderr
        assert "penstock webhooks secret" in penstock(*ingest, "https://example.com/hook", code=1).stderr
        assert (other.collections(), other.jobs().data) == ([], [])

        other.new_webhook_secret()
        penstock(*ingest, "https://example.com/hook")
        assert other.webhooks().data == []
        service.index()
        assert len(other.webhooks().data) == 1
        again = penstock(*ingest[:-2], "--webhook", "https://example.com/hook")
        assert "nothing to do: 4 documents unchanged" in again.stdout
        assert len(other.webhooks().data) == 2


def test_whom_all_jobs_are_told_to_is_set_shown_and_taken_back(penstock, service):
    with service.penstock() as client:
        client.new_webhook_secret()
        client.create_collection("told")
    default, own = "https://example.com/all", "https://example.com/one"
    penstock("webhooks", "default", default)
    shown = penstock("webhooks", "default", own, "-c", "told").stdout
    assert all(part in shown for part in ("told", own, "all others", default))
    assert "names a host" in penstock("webhooks", "default", "https://a..b/", code=2).stderr
    assert "'nothing'" in penstock("webhooks", "default", own, "-c", "nothing", code=1).stderr
    told = json.loads(penstock("webhooks", "default", "--none", "--json").stdout)
    assert told == {"url": None, "collections": {"told": own}}
    assert "nobody" in penstock("webhooks", "default", "--none", "-c", "told").stdout
    for words in (["-c", "told"], [own, "--none"]):
        assert "--none" in penstock("webhooks", "default", *words, code=2).stderr


def test_waiting_ends_and_the_same_command_goes_on_where_it_stopped(penstock, service, folder):
    late = penstock("ingest", "notes", "-c", "late", "--timeout", "0.5", code=5)
    assert "is still running after 0.5 s" in late.stderr
    again = penstock("ingest", "notes", "-c", "late", "--no-wait", "--json")
    (job,) = json.loads(again.stdout)["jobs"]
    assert job["state"] == "running"
    assert job["id"] in late.stderr

    service.index()

    done = penstock("ingest", "notes", "-c", "late", "--json")
    assert json.loads(done.stdout)["unchanged"] == 4
    assert "nothing to do: 4 documents unchanged" in penstock("ingest", "notes", "-c", "late").stdout
    hits = json.loads(penstock("search", "weirs", "-c", "late", "--json").stdout)["hits"]
    assert {hit["document"]["source"] for hit in hits} == {f"notes/{number}.txt" for number in range(4)}


def test_an_earlier_job_is_followed_to_its_end(environment, penstock, service, folder, tmp_path):
    penstock("ingest", "notes", "-c", "followed", "--no-wait")
    command = [sys.executable, "-m", "penstock.api.cli", "ingest", "notes", "-c", "followed"]
    following = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    service.index()
    out, _ = following.communicate(timeout=60)
    assert following.returncode == 0
    assert "4 documents (4 chunks) indexed" in out or "nothing to do" in out


def test_ctrl_c_leaves_the_job_running_and_says_how_to_go_on(environment, penstock, service, folder, tmp_path):
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a background job ignores it
    running = f"{heeding}; from penstock.api.cli import main; main()"
    command = [sys.executable, "-c", running, "ingest", "notes", "-c", "broken-off"]
    with service.penstock() as client:
        waiting = subprocess.Popen(
            command,
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 30
        while not any(job.collection == "broken-off" for job in client.jobs().data):
            assert time.monotonic() < deadline
            assert waiting.poll() is None
            time.sleep(0.05)
        time.sleep(0.5)  # it is waiting now
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)
        (job,) = (job for job in client.jobs().data if job.collection == "broken-off")
    assert waiting.returncode == 130
    assert f"penstock jobs show {job.id}" in said
    assert "Traceback" not in said
    assert job.state == "running"


def test_a_cancelled_job_ends_the_waiting_with_3(penstock, folder):
    job = json.loads(penstock("ingest", "notes", "-c", "stopped", "--no-wait", "--json").stdout)["jobs"][0]
    assert json.loads(penstock("jobs", "cancel", job["id"], "--json").stdout)["state"] == "cancelled"
    shown = json.loads(penstock("jobs", "show", job["id"], "--wait", "--json", code=3).stdout)
    assert shown["documents"] == {"cancelled": 4}
    moves = penstock("jobs", "follow", job["id"], "--json", code=3).stdout.splitlines()
    assert json.loads(moves[-1])["state"] == "cancelled"
    assert penstock("jobs", "show", job["id"], "--json").code == 0  # nothing was waited for


def test_a_changed_file_alone_is_sent(penstock, service, folder):
    penstock("ingest", "notes", "-c", "changing", "--no-wait")
    service.index()
    (folder / "2.txt").write_text("Note 2 is about lighthouses now.")
    outcome = json.loads(penstock("ingest", "notes", "-c", "changing", "--no-wait", "--json").stdout)
    assert (outcome["accepted"], outcome["unchanged"]) == (1, 3)


def test_metadata_is_filtered_on(penstock, service, folder):
    penstock("ingest", "notes/0.txt", "-c", "filtered", "-m", "year=2024", "--no-wait")
    penstock("ingest", "notes/1.txt", "-c", "filtered", "-m", "year=2020", "--no-wait")
    service.index()
    found = json.loads(penstock("search", "note", "-c", "filtered", "-f", "year>=2021", "--json").stdout)
    assert [hit["document"]["source"] for hit in found["hits"]] == ["0.txt"]
    assert "year" in penstock("search", "note", "-c", "filtered", "-f", "year", code=2).stderr


def test_a_filter_of_the_wrong_kind_is_the_same_error_over_http_the_queue_and_the_command_line(
    penstock, service, folder
):
    penstock("ingest", "notes/0.txt", "-c", "kinds", "-m", "year=2024", "--no-wait")
    service.index()
    written = {"type": "gt", "key": "year", "value": "abc"}
    told = "filter on 'year': documents hold numbers there, and 'abc' is text; compare it with numbers"
    path = "/v1/tenants/default/collections/kinds/search"
    until = time.monotonic() + 10
    while (answer := service.http.post(path, json={"query": "note", "filter": written})).status_code == 200:
        assert time.monotonic() < until, "the version with the document is not served"
    assert answer.status_code == 400
    assert answer.json()["error"] == {"code": "invalid_filter", "message": told, "param": "filter"}
    assert penstock("search", "note", "-c", "kinds", "-f", "year>abc", code=2).stderr == f"error: {told}\n"
    searcher = Searcher(service.settings, liveness=Liveness())
    searcher.open()
    try:
        asked = {"tenant": "default", "collection": "kinds", "query": "note"}
        assert searcher.search(**asked, filter=written) == {"error": {"code": "invalid_filter", "message": told}}
        assert searcher.search(**asked, filter={**written, "key": "month"})["hits"] == []
    finally:
        searcher.close()


def test_an_unknown_collection_and_a_wrong_key_are_sentences(penstock, folder):
    missing = penstock("search", "x", "-c", "nowhere", code=1).stderr
    assert "no collection 'nowhere': `penstock collections create nowhere` makes one" in missing
    assert "POST" not in missing
    assert "key" in penstock("collections", "list", "--key", "wrong", code=1).stderr
    unknown = penstock("collections", "list", "--tenant", "nobody", code=1).stderr
    assert unknown == "error: there is no tenant 'nobody': `penstock tenants create nobody` makes one\n"
    assert "`penstock jobs list` shows the ids" in penstock("jobs", "show", "0.txt", code=1).stderr
    penstock("collections", "create", "shown")
    for source in ("0.txt", "notes/0.txt"):
        shown = penstock("documents", "show", source, "-c", "shown", code=1).stderr
        assert "`penstock documents list --collection shown` shows both" in shown


def test_documents_of_folders_of_one_name_replace_each_other_unless_a_prefix_keeps_them_apart(penstock, tmp_path):
    for parent in ("a", "b"):
        (tmp_path / parent / "docs").mkdir(parents=True)
        (tmp_path / parent / "docs" / "x.txt").write_text(f"About {parent}.")

    def counts(*words: str) -> list[int]:
        told = json.loads(penstock("ingest", *words, "-c", "apart", "--no-wait", "--json").stdout)
        return [told[kind] for kind in ("new", "replaced", "unchanged")]

    assert counts("a/docs") == [1, 0, 0]
    assert counts("b/docs") == [0, 1, 0]
    assert counts("b/docs", "--prefix", "b") == [1, 0, 0]
    assert counts("b/docs", "--prefix", "b") == [0, 0, 1]
    listed = json.loads(penstock("documents", "list", "-c", "apart", "--json").stdout)["data"]
    assert {one["source"] for one in listed} == {"docs/x.txt", "b/x.txt"}


def test_a_collection_that_exists_is_not_made_differently(penstock):
    penstock("collections", "create", "fixed", "--model", "hash")
    penstock("collections", "create", "fixed", "--model", "hash")
    assert "fixed" in penstock("collections", "create", "fixed", "--model", "hash-512", code=1).stderr
    penstock("collections", "delete", "fixed", "--yes")
    penstock("collections", "show", "fixed", code=1)


def test_status_lists_collections_of_every_tenant(penstock, folder):
    penstock("ingest", "notes", "-c", "theirs", "--tenant", "other", "--no-wait")
    status = json.loads(penstock("status", "--json").stdout)
    assert ("other", "theirs") in {(one["tenant"], one["name"]) for one in status["collections"]}
    assert "theirs" in penstock("status").stdout
    assert "theirs" in penstock("status", "--watch").stdout  # into a pipe: once


def indexed_meanwhile(service: Service) -> threading.Thread:
    """Publish what the next command logs, while it waits."""

    def work() -> None:
        with service.penstock() as client:
            while not any(job.state == "running" for job in client.jobs().data):
                time.sleep(0.01)
        service.index()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def searched(service: Service, collection: str, **options) -> list[Hit]:
    """Search what was published last."""
    with service.penstock() as client:
        return client.search(collection, "note", min_token=client.collection(collection).token, **options).hits


def test_documents_are_deleted_by_source_id_and_filter(penstock, service, folder):
    penstock("ingest", str(folder), "-c", "leaving", "-m", "kind=note", "--no-wait")
    service.index()
    listed = json.loads(penstock("documents", "list", "-c", "leaving", "--json").stdout)["data"]
    ids = {one["source"]: one["id"] for one in listed}

    dry = penstock("documents", "delete", "notes/0.txt", "-c", "leaving", "--dry-run")
    assert "1 document of 'leaving'" in dry.stdout
    assert ids["notes/0.txt"] in dry.stdout
    named = ("notes/0.txt", ids["notes/1.txt"], "nothing.txt")
    thread = indexed_meanwhile(service)
    ended = penstock("documents", "delete", *named, "-c", "leaving", "--yes", "--wait", code=3)
    thread.join()
    assert "1 not found: nothing.txt" in ended.stdout
    assert "2 documents of 'leaving' deleted" in ended.stdout

    ended = penstock("documents", "delete", "--filter", "kind=note", "-c", "leaving", "--yes", "--json")
    told = json.loads(ended.stdout)
    assert (told["deleted"], told["not_found"], told["jobs"][0]["state"]) == (2, 0, "running")
    service.index()
    again = penstock("documents", "delete", "notes/0.txt", "-c", "leaving", "--yes")
    assert "0 documents, 1 deleted already of 'leaving'" in again.stdout
    assert json.loads(penstock("documents", "list", "-c", "leaving", "--json").stdout)["data"] == []
    gone = json.loads(penstock("documents", "list", "-c", "leaving", "--state", "deleted", "--json").stdout)["data"]
    assert len(gone) == 4


def test_a_deletion_asks_before_it_does_anything(penstock, service, folder, monkeypatch):
    penstock("ingest", str(folder), "-c", "asking", "--no-wait")
    service.index()
    ended = CliRunner().invoke(app, ["documents", "delete", "notes/0.txt", "-c", "asking"], input="n\n")
    assert ended.exit_code == 1
    assert "Delete 1 document of 'asking'?" in ended.output
    for words, said in (
        (("delete", "notes/0.txt", "--json"), "add --yes"),
        (("delete",), "name documents"),
        (("delete", "a", "--filter", "b=c"), "not both"),
        (("update", "a"), "nothing to change"),
        (("update", "a", "--expires-at", "soon"), "ISO 8601"),
        (("update", "a", "--replace-metadata", "[1]"), "not a JSON object"),
    ):
        assert said in penstock("documents", *words, "-c", "asking", code=2).stderr
    bad = penstock("documents", "delete", "--filter", '{"type": "near"}', "-c", "asking", code=2)
    assert "unknown operator" in bad.stderr
    listed = json.loads(penstock("documents", "list", "-c", "asking", "--json").stdout)["data"]
    assert {one["state"] for one in listed} == {"indexed"}


def test_a_deletion_that_is_confirmed_deletes_what_was_shown_and_nothing_that_came_since(
    penstock, service, folder, monkeypatch
):
    penstock("ingest", str(folder), "-c", "confirmed", "-m", "kind=note", "--no-wait")
    service.index()

    def meanwhile(*_words: object, **_options: object) -> bool:
        with service.penstock() as client:
            client.submit("confirmed", [NewDocument(source="late", text="note", metadata={"kind": "note"})])
        service.index()
        return True

    monkeypatch.setattr("typer.confirm", meanwhile)
    ended = penstock("documents", "delete", "--filter", "kind=note", "-c", "confirmed")
    assert "4 documents of 'confirmed' will be deleted" in ended.stdout
    service.index()
    listed = json.loads(penstock("documents", "list", "-c", "confirmed", "--json").stdout)["data"]
    assert [one["source"] for one in listed] == ["late"]


def test_a_document_is_described_anew_and_its_chunks_are_deleted(penstock, service, folder):
    penstock("ingest", str(folder), "-c", "saying", "--no-wait")
    service.index()
    thread = indexed_meanwhile(service)
    words = (
        "notes/0.txt",
        "-c",
        "saying",
        "-m",
        "year=2026",
        "-m",
        'x={"y": 1}',
        "-m",
        'code="5"',
        "--title",
        "Zero",
        "--expires-at",
        "2100-01-01",
        "--wait",
    )
    ended = penstock("documents", "update", *words)
    thread.join()
    assert "notes/0.txt, version 2, updated" in ended.stdout
    shown = json.loads(penstock("documents", "show", "notes/0.txt", "-c", "saying", "--json").stdout)
    assert (shown["title"], shown["metadata"], shown["expires_at"]) == (
        "Zero",
        {"year": 2026, "x": {"y": 1}, "code": "5"},
        4102444800.0,
    )
    (hit,) = searched(service, "saying", filter="x.y=1")
    assert hit.document.source == "notes/0.txt"
    penstock(
        "documents",
        "update",
        "notes/0.txt",
        "-c",
        "saying",
        "-m",
        '{"year": null, "x": null, "code": null}',
        "--expires-at",
        "",
    )
    service.index()
    shown = json.loads(penstock("documents", "show", "notes/0.txt", "-c", "saying", "--json").stdout)
    assert (shown["metadata"], shown["expires_at"]) == ({}, None)
    same = penstock("documents", "update", "notes/0.txt", "-c", "saying", "-m", "x=null")
    assert "says all that already" in same.stdout

    hit = searched(service, "saying")[0]
    told = penstock("chunks", "delete", str(hit.chunk_id), "9999", "-c", "saying", "--yes", code=3).stdout
    assert "1 chunk not found" in told
    assert "will be deleted; see how far: penstock jobs show job_" in told
    service.index()
    assert hit.text not in [one.text for one in searched(service, "saying")]
