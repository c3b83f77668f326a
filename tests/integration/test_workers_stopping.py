"""Work that is cancelled, or whose worker must stop, in whatever stage it is; and what the log says meanwhile."""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock.pipeline.errors import InputRejected, ProviderUnavailable
from penstock.settings import logs, wiring
from penstock.settings.model import Embedding as EmbeddingSettings
from penstock.settings.model import Log, Settings, Workers
from penstock.storage.catalog.jobs import cancel_job, list_jobs
from penstock.storage.ids import JobId
from penstock.workers import chunk, maintenance, routes
from penstock.workers.liveness import Liveness

from .test_workers_roles import ACME, NOBODY, WORDS, Line, Scripted

pytestmark = pytest.mark.timeout(120, method="thread")
GRACE_S = 1.0
KEY = "sk-canary-of-a-key"
TEXT = "canaryword"
TASKS = {"chunk": routes.CHUNK, "embed": routes.EMBED, "index": routes.INDEX}


class Gate:
    """Where a stage stands still until a test lets it go on."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def before(self, act: Callable[..., Any]) -> Callable[..., Any]:
        def gated(*args: Any, **kwargs: Any) -> Any:
            self.reached.set()
            assert self.open.wait(60)
            return act(*args, **kwargs)

        return gated


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    embedder = Scripted()
    monkeypatch.setattr(wiring, "open_embedder", lambda *_args, **_values: embedder)
    monkeypatch.setattr(os, "nice", lambda _by: 0)
    workers = Workers(chunk_processes=1, max_attempts=3, lease_s=30.0, retry_delay_s=0.001, grace_s=GRACE_S)
    workers = workers.model_copy(update={"queue_depth": 100, "chunk_memory_bytes": 1 << 45})
    settings = Settings(
        data_dir=tmp_path,
        broker_url=NOBODY,
        admin_key=KEY,
        embedding=EmbeddingSettings(threads=1, openai_api_key=KEY),
        workers=workers,
    )
    alarm = signal.getsignal(signal.SIGALRM)
    made = Line(settings, embedder)
    yield made
    made.close()
    signal.signal(signal.SIGALRM, alarm)


def stop_at(line: Line, stage: str, monkeypatch: pytest.MonkeyPatch) -> Gate:
    """Make ``stage`` stand still in the middle of its next batch."""
    gate = Gate()
    match stage:
        case "chunk":
            monkeypatch.setattr(chunk, "chunk_document", gate.before(chunk.chunk_document))
        case "embed":
            monkeypatch.setattr(line.embedder, "embed_passages", gate.before(line.embedder.embed_passages))
        case "index":
            publisher = line.roles[2]._publisher
            monkeypatch.setattr(publisher, "publish", gate.before(publisher.publish))
        case "merge":
            monkeypatch.setattr(maintenance, "build_merge", gate.before(maintenance.build_merge))
    return gate


@contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    """Run ``act`` in another thread; what it raises is raised here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 it is raised below
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if raised:
        raise raised[0]


def before(stage: str) -> list[str]:
    """Return the tasks that bring documents to ``stage``."""
    return [TASKS[name] for name in list(TASKS)[: list(TASKS).index(stage)]]


def job_of(line: Line) -> JobId:
    return list_jobs(line.catalog, tenant=ACME, limit=1)[0].id


@pytest.mark.parametrize("stage", ["queued", *TASKS])
def test_a_job_is_cancelled_at_once_in_whatever_stage_and_nothing_of_it_is_found(line, monkeypatch, stage):
    line.submit(kept=WORDS)
    line.run()
    line.submit(one=WORDS * 3, two=WORDS * 5)
    took_s: list[float] = []

    def cancel() -> None:
        began = time.perf_counter()
        assert cancel_job(line.catalog, tenant=ACME, job_id=job_of(line), now=time.time()).state == "cancelled"
        took_s.append(time.perf_counter() - began)

    if stage == "queued":
        cancel()
    else:
        if before(stage):
            line.run(only=before(stage))
        gate = stop_at(line, stage, monkeypatch)

        def act() -> None:
            assert gate.reached.wait(60)
            cancel()
            gate.open.set()

        with meanwhile(act):
            line.work(only=[TASKS[stage]])
    line.run()
    assert took_s[0] < 2.0
    assert line.states() == {"kept": "indexed", "one": "cancelled", "two": "cancelled"}
    assert set(line.found()) == {"kept"}


@pytest.mark.parametrize("stage", TASKS)
def test_what_is_not_finished_within_the_grace_is_handed_back_uncounted_and_done_by_another(line, monkeypatch, stage):
    line.submit(one=WORDS * 3)
    if before(stage):
        line.run(only=before(stage))
    gate = stop_at(line, stage, monkeypatch)
    back: list[tuple[str, str, int]] = []

    def act() -> None:
        assert gate.reached.wait(60)
        line.liveness.stop()
        deadline = time.monotonic() + 30
        while not back and time.monotonic() < deadline:
            back.extend((row.stage, row.state, row.attempts) for row in line.open_batches() if row.state == "ready")
            time.sleep(0.02)
        gate.open.set()

    with meanwhile(act):
        line.work(only=[TASKS[stage]])
    assert back == [(stage, "ready", 0)]
    assert line.found() == []  # what the stopped one still did was refused

    line.liveness._stopping_at.value = 0.0  # another process takes over
    line.run()
    assert line.states() == {"one": "indexed"}
    assert len(line.found()) == len(set(line.found())) or line.found() == ["one"] * len(line.found())


def test_a_merge_that_takes_longer_than_the_grace_is_handed_back(line, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr("penstock.workers.index.plan", lambda *_args: False)
        for numbers, text in ((range(10), "number"), (range(8), "changed")):
            line.submit(**{f"d{number}": f"{WORDS} {text} {number}" for number in numbers})
            line.run()
    line.tick()
    line.dispatcher.turn()
    [merge] = [message for message in line.messages if message.task == routes.MERGE]
    gate = stop_at(line, "merge", monkeypatch)
    back: list[int] = []

    def act() -> None:
        assert gate.reached.wait(60)
        line.liveness.stop()
        deadline = time.monotonic() + 30
        while not back and time.monotonic() < deadline:
            back.extend(row.attempts for row in line.open_batches() if (row.stage, row.state) == ("merge", "ready"))
            time.sleep(0.02)
        gate.open.set()

    with meanwhile(act):
        line.tasks[routes.MERGE](merge.argument)
    assert back == [0]


def test_the_grace_begins_once_however_often_a_process_is_told_to_stop():
    now = [10.0]
    liveness = Liveness(clock=lambda: now[0])
    assert (liveness.stopping, liveness.stopping_s) == (False, 0.0)
    liveness.stop()
    now[0] = 15.0
    liveness.stop()
    assert (liveness.stopping, liveness.stopping_s) == (True, 5.0)


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Give what the process logs, as it would write it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in logs.LOUD}
    yield lambda: [json.loads(text) for text in capsys.readouterr().err.splitlines() if text.startswith("{")]
    root.handlers[:], root.level = handlers, level
    for name, before_level in levels.items():
        logging.getLogger(name).setLevel(before_level)


def test_the_log_names_whose_work_it_is_and_quotes_neither_text_nor_key(line, monkeypatch, told):
    logs.configure(Log(format="json"), role="tests")
    line.embedder.refused = f"{TEXT} refused"
    line.embedder.failures = [
        ProviderUnavailable(f"the endpoint says {TEXT} {KEY}"),
        RuntimeError(f"a library quotes {TEXT} and {KEY}"),
    ]
    original = line.embedder.embed_passages

    def refusing(texts):
        try:
            return original(texts)
        except InputRejected as error:
            raise InputRejected(f"refused: {texts[error.index]} with {KEY}", index=error.index) from error

    monkeypatch.setattr(line.embedder, "embed_passages", refusing)
    line.submit(good=f"{TEXT} {WORDS * 3}", bad=f"{TEXT} refused {WORDS}")
    line.submit(binary=f"{TEXT}\0\1\2" * 100, empty="")
    line.run()
    assert line.states() == {"good": "indexed", "bad": "failed", "binary": "failed", "empty": "failed"}

    lines = told()
    written = json.dumps(lines)
    assert TEXT not in written
    assert KEY not in written
    messages = [entry["message"] for entry in lines]
    assert any(message.startswith("The batch failed: RuntimeError at") for message in messages)
    assert any(message.startswith("The provider is not available") for message in messages)
    jobs = {job.id for job in list_jobs(line.catalog, tenant=ACME)}
    for begin in ("Chunked", "Embedded", "Published"):
        [entry, *_] = [entry for entry in lines if entry["message"].startswith(begin)]
        assert entry["tenant"] == ACME
        assert entry["generation"] == line.collection.generation.id
        assert "batch" in entry or "batches" in entry
        assert jobs & set((entry.get("job") or entry.get("jobs")).split(","))
    failed = [entry for entry in lines if entry["message"].startswith("A document fails")]
    documents = {document.id for document in line.documents().values() if document.state == "failed"}
    assert {entry["document"] for entry in failed} == documents
    assert {entry["tenant"] for entry in failed} == {ACME}
    assert all("batch" in entry and "job" in entry and "jobs" not in entry for entry in failed)
