"""How the command line tells that a job waits for its provider, or for a person."""

import io
import time
from collections.abc import Sequence

import pytest
from rich.console import Console

from penstock.api.cli import following
from penstock.api.cli import jobs as jobs_command
from penstock.api.cli import status as status_command
from penstock.api.cli.following import Progress, said
from penstock.api.http.examples.reembeddings import EXAMPLES
from penstock.client.wire import HeldUp, Job, Reembedding, Status, TenantJob, TenantReembedding

REASON = "https://api [x] refuses the key in embedding.openai_api_key: wrong"


def held(**fields) -> HeldUp:
    return HeldUp(**({"paused": False, "reason": REASON, "next_attempt_at": None} | fields))


def job(*, paused: bool | None, left_s: float = 30.0, **fields) -> dict:
    held_up = None if paused is None else held(paused=paused, next_attempt_at=time.time() + left_s)
    known = {
        "id": "job_1",
        "collection": "docs",
        "state": "running",
        "created_at": 1.0,
        "finished_at": None,
        "documents": {"embedding": 2},
        "chunks_total": 2,
        "chunks_embedded": 0,
        "chunks_indexed": 0,
        "cache_hits": 0,
        "unchanged": 0,
        "token": None,
        "held_up": held_up,
    }
    return known | fields


@pytest.fixture
def shown(monkeypatch):
    out = io.StringIO()
    screen = Console(file=out, width=200, highlight=False, emoji=False)
    for module in (jobs_command, status_command):
        monkeypatch.setattr(module, "console", lambda **_: screen)

    def text() -> str:
        return " ".join(out.getvalue().split())

    text.screen = screen
    return text


def reembedding(**fields) -> TenantReembedding:
    known = EXAMPLES[Reembedding] | {"tenant": "acme", "collection": "docs"}
    return TenantReembedding.model_validate(known | fields)


def now_with(*running: dict, reembeddings: Sequence[TenantReembedding] = ()) -> Status:
    return Status(
        version="1",
        now=1.0,
        queued_documents=0,
        oldest_queued_s=None,
        stages={},
        roles=[],
        jobs=[TenantJob(**one, tenant="acme") for one in running],
        reembeddings=reembeddings,
        collections=[],
    )


@pytest.mark.parametrize(("paused", "word"), [(True, "paused"), (False, "retried")])
def test_a_job_is_shown_with_the_reason_and_when_it_is_tried_again(shown, paused, word):
    jobs_command._show(Job(**job(paused=paused)))

    assert f"{word} {REASON} (tried again in 30 s)" in shown() or f"{word} {REASON} (tried again in 29 s)" in shown()


def test_a_job_that_waits_for_an_order_is_not_said_to_be_retried(shown):
    ordered = job(paused=None) | {"held_up": held(ordered=True)}
    jobs_command._show(Job(**ordered))
    shown.screen.print(status_command._page(now_with(ordered)))

    assert f"economy {REASON}" in shown()
    assert f"economy: job job_1: {REASON}" in shown()
    assert "retried" not in shown()
    assert "paused" not in shown()


def test_status_tells_what_is_embedded_again_and_why_it_does_not_go_on(shown):
    waiting = reembedding(id="reemb_1", held_up=held(paused=True))
    ordered = reembedding(id="reemb_2", held_up=held(ordered=True))
    stopped = reembedding(id="reemb_3", paused_at=1.0, error="a text was refused")
    told = (waiting, ordered, stopped, reembedding(id="reemb_4", paused_at=1.0))
    shown.screen.print(status_command._page(now_with(reembeddings=told)))

    assert f"paused: re-embedding reemb_1: {REASON}" in shown()
    assert f"economy: re-embedding reemb_2: {REASON}" in shown()
    assert "static to minilm" in shown()
    assert shown().count("copying, paused") == 2
    assert "copying, stands still: a text was refused" in shown()
    assert shown().count("4,096/12,000") == 4


def test_a_job_whose_time_has_come_is_being_tried(shown):
    jobs_command._show(Job(**job(paused=True, left_s=-1.0)))

    assert "(being tried again)" in shown()


def test_a_job_that_nothing_holds_up_has_no_such_line(shown):
    jobs_command._show(Job(**job(paused=None)))

    assert "paused" not in shown()
    assert "retried" not in shown()


def test_status_tells_each_reason_once_with_the_jobs_that_wait_for_it(shown):
    running = [job(paused=True, id=f"job_{number}") for number in range(5)]
    shown.screen.print(status_command._page(now_with(*running, job(paused=None, id="job_well"))))

    assert shown().count("refuses the key") == 1
    assert f"paused: jobs job_0, job_1, job_2 and 2 more: {REASON}" in shown()


def test_status_tells_what_is_retried_apart_from_what_is_paused(shown):
    shown.screen.print(status_command._page(now_with(job(paused=False), job(paused=True, id="job_2"))))

    assert f"retried: job job_1: {REASON}" in shown()
    assert f"paused: job job_2: {REASON}" in shown()


def test_without_a_terminal_a_pause_is_told_at_once_and_once(monkeypatch):
    out = io.StringIO()
    notes = Console(file=out, width=300, highlight=False, emoji=False)
    running, paused = (Progress.of([Job(**job(paused=word))]) for word in (None, True))
    with following._display(notes, "indexing") as show:
        for progress in (running, paused, paused, running):
            show(progress)

    lines = out.getvalue().splitlines()
    assert [("paused: https://api [x]" in line) for line in lines] == [True, False]


def test_whoever_waits_for_a_job_is_told_beside_the_bar_that_it_is_paused():
    waiting = said(Progress.of([Job(**job(paused=True)), Job(**job(paused=None))]))

    assert "paused: https://api \\[x] refuses the key" in waiting
    assert "paused" not in said(Progress.of([Job(**job(paused=False))]))
