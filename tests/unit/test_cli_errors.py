"""How a command says that it failed or was stopped: to people a sentence, to programs one object, to both a code."""

import json
import os
import signal
import sys
from dataclasses import dataclass

import pytest

from penstock.api import cli
from penstock.api.cli.advice import in_commands
from penstock.api.cli.exits import report, wants_json
from penstock.client import NotFound, ServerError, Unauthorized, Unreachable
from penstock.client.wire import Collection, Job, Known, Submitted
from penstock.pipeline.errors import ProviderMisconfigured

JOB = Job(
    id="job_1",
    collection="default",
    state="running",
    created_at=1.0,
    finished_at=None,
    documents={"queued": 2},
    chunks_total=0,
    chunks_embedded=0,
    chunks_indexed=0,
    cache_hits=0,
    unchanged=0,
    token=None,
)


def collection(documents: int) -> Collection:
    return Collection(
        id="col_1",
        name="default",
        created_at=1.0,
        model="minilm",
        dimensions=384,
        metric="cosine",
        quantization="none",
        chunking={},
        version=0,
        published_at=None,
        chunks=0,
        documents={"indexed": documents},
        token="gen_1:0",
    )


class Server:
    """A server whose only job never ends. ``raises`` has what ends a request, by its name."""

    def __init__(self) -> None:
        self.raises: dict[str, BaseException] = {}
        self.jobs_asked = 0

    def __call__(self, url, key, tenant):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def _may_fail(self, what):
        if what in self.raises:
            raise self.raises[what]

    def collection(self, name):
        self._may_fail("collection")
        return collection(0)

    def compare(self, name, hashes):
        self._may_fail("compare")
        return Known(known=[])

    def upload(self, name, uploads, *, job_id=None, idempotency_key=None, priority="normal"):
        self._may_fail("upload")
        return Submitted(job=JOB, accepted=len(uploads), replaced=0, unchanged=0)

    def job(self, job_id, *, wait_s=0):
        self.jobs_asked += 1
        if self.jobs_asked > 1:
            self._may_fail("job")
        return JOB

    def events(self, job_id, *, wait_s=None):
        yield self.job(job_id)
        while wait_s is None or "job" in self.raises:
            yield self.job(job_id)


@pytest.fixture
def server(monkeypatch, tmp_path):
    fake = Server()
    monkeypatch.setattr("penstock.client.Penstock", fake)
    monkeypatch.setattr("penstock.api.cli.uploading.time.sleep", lambda _: None)
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("PENSTOCK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PENSTOCK_API_KEY", "key-of-the-tests")
    monkeypatch.setenv("PENSTOCK_URL", "http://127.0.0.1:9")
    (tmp_path / "papers").mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / "papers" / name).write_text(name)
    return fake


@dataclass(frozen=True)
class Ended:
    """How the program ended and what it wrote to standard error."""

    code: int
    said: str

    @property
    def told(self) -> dict:
        return json.loads(self.said)


@pytest.fixture
def penstock(monkeypatch, capsys):
    """Run the program as its user does, in this process."""

    def run(*words: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["penstock", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, said = capsys.readouterr()
        assert out == ""
        return Ended(int(ended.value.code or 0), said)

    return run


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["jobs", "list", "--limit", "0"], "--limit"),
        (["jobs", "list", "--nonsense"], "No such option: --nonsense"),
        (["jobs", "show"], "Missing argument"),
        (["ingest", "papers", "--timeout", "soon"], "--timeout"),
        (["nonsense"], "No such command 'nonsense'"),
        (["collections"], "--json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_object_when_json_is_asked_for(penstock, words, says):
    ended = penstock(*words, "--json")

    assert ended.code == 2
    assert set(ended.told) == {"error"}
    assert set(ended.told["error"]) == {"code", "message"}
    assert ended.told["error"]["code"] == "usage"
    assert says in ended.told["error"]["message"]
    assert "; see: penstock " in ended.told["error"]["message"]
    said = penstock(*words).said if words != ["collections"] else "Usage:"
    assert said.startswith("Usage:")


def test_wrong_usage_shows_no_stack_trace_even_when_one_is_asked_for(penstock, monkeypatch):
    monkeypatch.setenv("PENSTOCK_DEBUG", "1")
    assert penstock("jobs", "list", "--nonsense").code == 2


def test_words_after_two_dashes_are_no_options():
    assert wants_json(["search", "x", "--json"])
    assert not wants_json(["search", "--", "--json"])


def test_waiting_too_long_tells_the_job_and_the_counts_so_far(penstock, server):
    ended = penstock("ingest", "papers", "--timeout", "0", "--json")

    assert ended.code == 5
    assert ended.told["error"]["code"] == "still_running"
    assert ended.told["job_id"] == "job_1"
    assert [ended.told[kind] for kind in ("accepted", "new", "replaced", "unchanged")] == [2, 2, 0, 0]
    assert ended.told["jobs"][0]["documents"] == {"queued": 2}


def test_waiting_too_long_tells_people_how_to_go_on(penstock, server):
    said = penstock("ingest", "papers", "--timeout", "0").said
    for part in ("still running after 0 s", "2 documents accepted (2 new)", "penstock jobs show job_1", "same command"):
        assert part in said


@pytest.mark.parametrize("before", ["collection", "compare"])
def test_ctrl_c_before_anything_was_sent_says_so_in_one_line(penstock, server, before):
    server.raises[before] = KeyboardInterrupt()

    ended = penstock("ingest", "papers")
    told = penstock("ingest", "papers", "--json").told

    assert (ended.code, ended.said) == (130, "interrupted: nothing was submitted\n")
    assert told["error"] == {"code": "interrupted", "message": "interrupted: nothing was submitted"}
    assert (told["accepted"], told["job_id"]) == (0, None)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ingest", "papers"], "interrupted: nothing was submitted"),
        (["status"], "interrupted"),
    ],
)
def test_ctrl_c_before_the_command_began_is_said_too(penstock, monkeypatch, words, says):
    def interrupted(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.api.cli.application.app", interrupted)
    assert penstock(*words) == Ended(130, f"{says}\n")
    assert penstock(*words, "--json").told == {"error": {"code": "interrupted", "message": says}}


def test_ctrl_c_while_sending_says_what_was_accepted_and_what_perhaps(penstock, server, monkeypatch):
    monkeypatch.setattr("penstock.api.cli.uploading.REQUEST_FILES", 1)
    upload, sent = server.upload, []

    def once(name, uploads, *, job_id=None, idempotency_key=None, priority="normal"):
        sent.append(uploads)
        if len(sent) % 2 == 0:
            raise KeyboardInterrupt
        return upload(name, uploads, job_id=job_id)

    monkeypatch.setattr(server, "upload", once)
    ended = penstock("ingest", "papers")
    told = penstock("ingest", "papers", "--json").told

    assert ended.code == 130
    for part in ("1 document accepted (1 new)", "perhaps 1 more", "penstock jobs show job_1", "same command again"):
        assert part in ended.said
    assert (told["accepted"], told["unconfirmed"], told["job_id"]) == (1, 1, "job_1")
    assert told["error"]["code"] == "interrupted"


def test_ctrl_c_while_the_first_request_is_under_way_does_not_say_that_nothing_was_submitted(penstock, server):
    server.raises["upload"] = KeyboardInterrupt()
    ended = penstock("ingest", "papers")
    assert "0 documents accepted, perhaps 2 more, which the server did not confirm" in ended.said


def test_ctrl_c_while_waiting_tells_the_job_and_the_counts_so_far(penstock, server):
    server.raises["job"] = KeyboardInterrupt()
    ended = penstock("ingest", "papers")
    server.jobs_asked = 0
    told = penstock("ingest", "papers", "--json").told

    assert ended.code == 130
    assert ended.said.startswith("interrupted: 2 documents accepted (2 new). The server goes on; `penstock jobs show")
    assert (told["accepted"], told["job_id"], told["jobs"][0]["id"]) == (2, "job_1", "job_1")


def test_a_server_that_goes_away_leaves_what_was_accepted_in_the_answer(penstock, server):
    server.raises["job"] = Unreachable("no connection to http://x")
    told = penstock("ingest", "papers", "--json")
    assert (told.code, told.told["job_id"], told.told["accepted"]) == (4, "job_1", 2)


def test_a_server_that_fails_on_a_request_may_have_taken_it(penstock, server):
    server.raises["upload"] = ServerError("the server failed", code="internal", status=500)
    ended = penstock("ingest", "papers", "--json")
    assert (ended.code, ended.told["error"]["code"], ended.told["unconfirmed"]) == (1, "internal", 2)
    assert "perhaps 2 more" in penstock("ingest", "papers").said


@pytest.mark.parametrize("error", [Unauthorized("the key is wrong", code="wrong_key"), Unreachable("no connection")])
def test_an_error_before_anything_was_begun_is_only_that(penstock, server, error):
    server.raises["collection"] = error
    assert set(penstock("ingest", "papers", "--json").told) == {"error"}


@pytest.mark.parametrize("stop", [None, KeyboardInterrupt()])
def test_waiting_for_a_job_that_is_stopped_tells_how_far_it_is(penstock, server, stop):
    if stop is not None:
        server.raises["job"] = stop
    ended = penstock("jobs", "show", "job_1", "--wait", "--timeout", "0", "--json")
    assert ended.code == (5 if stop is None else 130)
    assert ended.told["job_id"] == "job_1"
    assert ended.told["job"]["documents"] == {"queued": 2}
    assert "the server goes on" in ended.told["error"]["message"]


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        (
            "tenant 'default' has no collection 'x': POST /v1/tenants/default/collections makes one",
            "tenant 'default' has no collection 'x': `penstock collections create x` makes one",
        ),
        (
            "tenant 'a' has no collection 'x'",
            "tenant 'a' has no collection 'x': `penstock collections create x --tenant a` makes one",
        ),
        (
            "there is no tenant 'a': POST /v1/tenants makes one",
            "there is no tenant 'a': `penstock tenants create a` makes one",
        ),
        ("there is no job 'x y'", "there is no job 'x y': `penstock jobs list` shows the ids"),
        ("k is 0: POST /v1 is no help", "k is 0: POST /v1 is no help"),
        (
            "collection 'x' was never embedded again: POST to this path begins",
            "collection 'x' was never embedded again: `penstock reembed x --model …` begins",
        ),
        (
            "there is no schedule 's' here: the list of schedules shows the ids",
            "there is no schedule 's' here: `penstock schedules list` shows the ids, with --all those of everything",
        ),
    ],
)
def test_advice_for_programs_becomes_advice_for_people(said, advised, penstock, server):
    assert in_commands(said) == advised
    server.raises["collection"] = NotFound(said)
    told = penstock("collections", "show", "x", "--json").told
    assert told["error"]["message"] == advised


def test_a_provider_that_cannot_work_as_configured_is_told_with_the_setting_to_change(capsys):
    told = "There is no embedding model 'bert': use minilm"
    assert report(ProviderMisconfigured(told, setting="embedding.model"), as_json=False) == 1
    assert capsys.readouterr().err == f"error: embedding.model: {told}\n"
    report(ProviderMisconfigured("embedding.model is x, which lacks weights", setting="embedding.model"), as_json=False)
    assert capsys.readouterr().err == "error: embedding.model is x, which lacks weights\n", "named once is enough"


def test_ctrl_c_while_the_result_is_printed_does_not_say_that_nothing_was_submitted(penstock, server, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("penstock.api.cli.outcomes.show_outcome", interrupted)
    ended = penstock("ingest", "papers", "--no-wait")
    assert ended.code == 130
    assert "2 documents accepted" in ended.said


def test_being_told_to_end_is_answered_like_ctrl_c(penstock, server, monkeypatch):
    def ended(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    try:
        monkeypatch.setattr(server, "upload", ended)
        told = penstock("ingest", "papers", "--json")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (told.code, told.told["unconfirmed"]) == (130, 2)


def test_a_server_that_is_gone_is_not_said_to_go_on(penstock, server):
    server.raises["job"] = Unreachable("no connection to http://x")
    said = penstock("ingest", "papers").said
    assert "Once the server runs again it finishes what it accepted, and the same command again" in said
    assert "goes on;" not in said
