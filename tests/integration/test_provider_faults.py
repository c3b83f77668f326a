"""What becomes of documents when their provider fails: each fault of an endpoint, through the embed role, to its end.

The endpoint is a server of its own that speaks OpenAI's protocol. Each fault ends as one of: retried, split, the
document dead with the reason, the job paused with the reason.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import sqlalchemy as sa

from penstock.pipeline.errors import ProviderHeld
from penstock.settings import wiring
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.jobs import JobInfo
from penstock.storage.catalog.tables import accounts, batches
from penstock.storage.intake.documents import Accepted, SubmittedDocument

from ..embedding_endpoint import DIMENSIONS, POISON, Endpoint, Handler
from ..role_line import ACME, RoleLine, role_line

# The chunk role sets alarms, which the other method of timing tests out would lose.
pytestmark = pytest.mark.timeout(120, method="thread")

TEXTS = {f"d{number}": f"The gate number {number} opens, and water turns wheel {number}." for number in range(6)}
Fault = Callable[[Handler, dict[str, Any]], None]


@dataclass
class FaultyLine(RoleLine):
    """Roles whose provider is the ``endpoint``."""

    endpoint: Endpoint | None = None

    def submit(self, **texts: str) -> Accepted:
        return self.accept(
            [SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in texts.items()]
        )

    def step(self) -> None:
        """Send what is due, and do all of it once."""
        self.send()
        while self.messages:
            self.work()
        self.publish()

    def until_embedding_failed(self, accepted: Accepted) -> JobInfo:
        deadline = time.monotonic() + 30
        while (job := self.job(accepted)).held_up is None:
            assert time.monotonic() < deadline, job
            self.step()
        return job

    def open_batches(self) -> list[Any]:
        with self.catalog.read() as connection:
            wanted = sa.select(batches).where(batches.c.stage == "embed", batches.c.state == "ready")
            return list(connection.execute(wanted))

    def pass_a_minute(self) -> None:
        """Let everything be due that waits."""
        with self.catalog.write("test") as connection:
            connection.execute(sa.update(batches).values(next_attempt_at=0.0))

    def documents(self) -> dict[str, DocumentInfo]:
        found = list_documents(self.catalog, tenant=ACME, collection_id=self.collection.id, limit=1_000)
        return {document.source: document for document in found}

    def states(self) -> dict[str, str]:
        return {source: document.state for source, document in self.documents().items()}

    def nearest(self, text: str) -> str:
        """Return which document a search for exactly this text's own vector finds first."""
        snapshots = wiring.new_snapshots(self.components.settings, self.catalog, self.components.objects)
        try:
            with snapshots.get(ACME, self.collection.generation.id) as snapshot:
                vector = np.asarray(self.endpoint.vector_of(text), np.float32)
                return snapshot.search(vector / np.linalg.norm(vector), k=1, now=time.time())[0].document.source
        finally:
            snapshots.close()


@pytest.fixture
def line(tmp_path: Path, endpoint: Endpoint) -> Iterator[FaultyLine]:
    embedding = {
        "model": "openai/local",
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_api_key": "sk-of-the-test",
        "timeout_s": 0.5,
        "threads": 1,
    }
    workers = {"retry_delay_s": 0.001, "max_attempts": 2}
    with role_line(tmp_path, seed=7, size_tokens=64, kind=FaultyLine, embedding=embedding, workers=workers) as made:
        made.endpoint = endpoint
        yield made


def refusing(status: int, **more: Any) -> Fault:
    return lambda handler, _: handler.refuse(status, "said the endpoint", **more)


def changing(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Fault:
    return lambda handler, request: handler.answer_items(change(handler.endpoint.items(request["input"])))


def silent(handler: Handler, _: dict[str, Any]) -> None:
    handler.endpoint.released.wait(20)
    handler.hang_up()


def cut_off(handler: Handler, request: dict[str, Any]) -> None:
    body = json.dumps({"data": handler.endpoint.items(request["input"])}).encode()
    handler.answer(200, body[: len(body) // 2], claimed_bytes=len(body))


def times(count: int, fault: Fault) -> Fault:
    """Return what does ``fault`` so often, and then what the endpoint would do."""
    left = [count]

    def do(handler: Handler, request: dict[str, Any]) -> None:
        if left[0] > 0:
            left[0] -= 1
            fault(handler, request)
        else:
            handler.answer_items(handler.endpoint.items(request["input"]))

    return do


RETRIED = {
    "429 with Retry-After": refusing(429, Retry_After="0.01"),
    "429 without Retry-After": refusing(429),
    "500": refusing(500),
    "503": refusing(503),
    "silent": silent,
    "a byte now and then": lambda handler, _: handler.drip(b" " * 100_000, every_s=0.05),
    "hung up": lambda handler, _: handler.hang_up(),
    "cut off in the body": cut_off,
    "a vector too few": changing(lambda items: items[:-1]),
    "a vector too many": changing(lambda items: [*items, items[0]]),
    "an index twice": changing(lambda items: [{**item, "index": 0} for item in items]),
    "NaN": changing(lambda items: [{**item, "embedding": [float("nan")] * DIMENSIONS} for item in items]),
}
PAUSED = {
    "401": (refusing(401), "embedding.openai_api_key"),
    "403": (refusing(403), "embedding.openai_api_key"),
    "quota exhausted": (refusing(429, code="insufficient_quota"), "embedding.openai_api_key"),
    "404": (refusing(404), "embedding.model"),
    "400 for every text": (refusing(400), "refuses every request"),
    "other dimensions": (
        changing(lambda items: [{**item, "embedding": [0.1] * 100} for item in items]),
        "set embedding.openai_dimensions to 100",
    ),
}


@pytest.mark.parametrize("fault", RETRIED.values(), ids=RETRIED)
def test_what_passes_is_retried_without_costing_a_document_an_attempt(line, fault):
    line.endpoint.fault = times(3, fault)  # more often than a document has attempts
    accepted = line.submit(**TEXTS)
    waiting = line.until_embedding_failed(accepted)
    held_up = {batch.postponed for batch in line.open_batches()}
    line.drain()

    assert waiting.held_up is not None
    assert not waiting.held_up.paused
    assert "retrying" in held_up
    assert waiting.held_up.reason.startswith(line.endpoint.url)
    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert {source: line.nearest(text) for source, text in TEXTS.items()} == {source: source for source in TEXTS}
    assert (line.job(accepted).state, line.job(accepted).held_up) == ("done", None)


def test_a_provider_that_asks_for_time_is_given_it(line):
    line.endpoint.fault = refusing(429, Retry_After="40")
    before = time.time()
    job = line.until_embedding_failed(line.submit(**TEXTS))

    assert job.held_up.next_attempt_at >= before + 40
    assert min(batch.next_attempt_at for batch in line.open_batches()) >= before + 40
    requests = len(line.endpoint.requests)
    line.step()
    assert len(line.endpoint.requests) == requests, "nobody asks before that"


def test_vectors_in_another_order_are_each_texts_own(line):
    line.endpoint.fault = changing(lambda items: items[::-1])
    line.submit(**TEXTS)
    line.drain()

    assert {source: line.nearest(text) for source, text in TEXTS.items()} == {source: source for source in TEXTS}


def test_a_request_that_is_too_large_is_split_and_no_document_is_harmed(line):
    def fault(handler: Handler, request: dict[str, Any]) -> None:
        if len(request["input"]) > 2:
            handler.refuse(413, "too large")
        else:
            handler.answer_items(handler.endpoint.items(request["input"]))

    line.endpoint.fault = fault
    accepted = line.submit(**TEXTS)
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert line.job(accepted).held_up is None
    assert max(len(request["input"]) for request in line.endpoint.requests) > 2


def test_the_one_text_that_is_refused_is_a_dead_document_with_the_reason_and_the_others_go_on(line):
    accepted = line.submit(**TEXTS, bad=POISON)
    line.drain()

    assert line.states() == dict.fromkeys(TEXTS, "indexed") | {"bad": "failed"}
    bad = line.documents()["bad"]
    assert (bad.stage, bad.error_code) == ("embed", "input_rejected")
    assert "this input is not allowed" in bad.error
    assert {source: line.nearest(text) for source, text in TEXTS.items()} == {source: source for source in TEXTS}
    assert line.job(accepted).state == "done"


@pytest.mark.parametrize(("fault", "named"), PAUSED.values(), ids=PAUSED)
def test_what_a_person_has_to_mend_pauses_the_job_with_the_reason_until_it_is_mended(line, fault, named):
    line.endpoint.fault = fault
    accepted = line.submit(**TEXTS)
    job = line.until_embedding_failed(accepted)

    assert job.state == "running"
    assert job.held_up.paused
    assert named in job.held_up.reason
    assert job.held_up.next_attempt_at > time.time() + 30
    for _ in range(3):  # longer than a document has attempts
        line.pass_a_minute()
        line.step()
    assert line.job(accepted).held_up.paused
    assert set(line.states().values()) == {"embedding"}, "no document is to blame"

    line.endpoint.fault = None
    line.pass_a_minute()
    line.drain()
    assert line.states() == dict.fromkeys(TEXTS, "indexed")
    assert line.job(accepted).held_up is None


def test_a_paused_job_can_be_cancelled_and_is_not_told_to_be_paused_then(line):
    from penstock.storage.catalog.jobs import cancel_job  # noqa: PLC0415

    line.endpoint.fault = refusing(401)
    accepted = line.submit(**TEXTS)
    line.until_embedding_failed(accepted)
    cancelled = cancel_job(line.catalog, tenant=ACME, job_id=accepted.job_id, now=time.time())

    assert (cancelled.state, cancelled.held_up) == ("cancelled", None)


def test_a_job_of_another_model_goes_on_beside_a_paused_one_and_only_the_paused_one_says_so(line):
    line.endpoint.fault = refusing(401)
    paused = line.submit(**TEXTS)
    line.until_embedding_failed(paused)
    line.endpoint.fault = None
    other = line.submit(late="A text that came when the key was accepted again.")
    deadline = time.monotonic() + 30
    while line.job(other).state == "running":
        assert time.monotonic() < deadline
        line.step()

    assert line.job(other).held_up is None
    assert line.job(paused).held_up.paused


def test_batches_of_another_model_go_on_while_a_provider_hangs_in_every_call_it_got(line, monkeypatch):
    monkeypatch.setattr("penstock.pipeline.embedding.traffic.WAIT_S", 0.05)
    embedders = line.embedding._components.embedders
    embedders.of("hash-256", 256)  # another collection's
    hanging = threading.Event()

    def hang(handler: Handler, _: dict[str, Any]) -> None:
        hanging.set()
        handler.endpoint.released.wait(20)
        handler.hang_up()

    line.endpoint.fault = hang
    accepted = []
    for source in ("one", "two"):
        accepted.append(line.submit(**{source: f"The text of document {source}."}))
        line.send()
        line.work()
    line.send()
    sent = [batch for stage, batch in line.messages if stage == "embed"]
    with ThreadPoolExecutor(2) as threads:  # as many as workers.embed_threads
        first = threads.submit(line.embedding.embed, sent[0])
        assert hanging.wait(10)
        threads.submit(line.embedding.embed, sent[1]).result(timeout=10)
        told = [held_up.reason for job in accepted if (held_up := line.job(job).held_up)]
        assert not first.done()

    assert ["leave room for other models" in reason for reason in told] == [True]


def test_a_batch_that_would_wait_for_long_for_its_turn_goes_back_to_the_ledger_with_the_reason(line):
    held = ProviderHeld(f"{line.endpoint.url} takes 3 requests a minute now, and others came first", retry_after_s=20.0)
    embedder = line.embedding._components.embedders.of("openai/local", DIMENSIONS)
    accepted = line.submit(**TEXTS)
    before = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedder._traffic, "take", Mock(side_effect=held))
        job = line.until_embedding_failed(accepted)

    assert not job.held_up.paused
    assert "takes 3 requests a minute" in job.held_up.reason
    assert 20 <= job.held_up.next_attempt_at - before < 30, "when its turn comes, and no backoff on top"
    assert line.endpoint.requests == []
    line.pass_a_minute()
    line.drain()
    assert line.states() == dict.fromkeys(TEXTS, "indexed")


def test_what_is_put_off_is_not_charged_to_its_tenant(line):
    held = ProviderHeld("not now", retry_after_s=20.0)
    embedder = line.embedding._components.embedders.of("openai/local", DIMENSIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embedder._traffic, "take", Mock(side_effect=held))
        line.until_embedding_failed(line.submit(**TEXTS))
    with line.catalog.read() as connection:
        rows = connection.execute(sa.select(accounts).where(accounts.c.stage == "embed")).all()

    assert [row.settled - row.started for row in rows if row.lane == -1] == [pytest.approx(0.0)]
