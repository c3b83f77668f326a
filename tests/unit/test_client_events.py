"""Server-sent events as the client reads them, and what it does when they break off."""

import json
from typing import Any

import httpx
import pytest

from penstock import client
from penstock.client import events
from penstock.client.events import Event, read_events

JOB: dict[str, Any] = {
    "id": "job_1",
    "collection": "books",
    "state": "running",
    "created_at": 1.0,
    "finished_at": None,
    "documents": {"queued": 1},
    "chunks_total": 0,
    "chunks_embedded": 0,
    "chunks_indexed": 0,
    "cache_hits": 0,
    "unchanged": 0,
    "token": None,
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(events, "PAUSE_S", 0.0)


def test_comments_and_fields_nobody_knows_are_left_out():
    lines = [": beat", "", "retry: 5", "", "id: 1", "event: done", "data: {}", "", "data:a", "data: b", "", "data: cut"]
    assert list(read_events(lines)) == [Event("done", "{}", "1"), Event("message", "a\nb", None)]


def streamed(*jobs: dict[str, Any]) -> httpx.Response:
    body = "".join(f"id: {number}\nevent: progress\ndata: {json.dumps(job)}\n\n" for number, job in enumerate(jobs, 7))
    return httpx.Response(200, text=body, headers={"content-type": "text/event-stream"})


def followed(
    *answers: httpx.Response | Exception, wait_s: float | None = None
) -> tuple[list[str], list[httpx.Request]]:
    """Return the states that the client yields, and what it asked, when it is answered so one after the other."""
    asked: list[httpx.Request] = []
    waiting = list(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        given = waiting.pop(0) if waiting else httpx.Response(200, json=JOB | {"state": "done"})
        if isinstance(given, Exception):
            raise given
        return given

    with client.Penstock("http://server", "secret", transport=httpx.MockTransport(answer)) as penstock:
        return [job.state for job in penstock.events("job_1", wait_s=wait_s)], asked


def test_a_stream_that_breaks_off_is_resumed_after_the_last_event():
    states, asked = followed(streamed(JOB, JOB), httpx.ReadError("cut"), streamed(JOB | {"state": "done"}))
    assert states == ["running", "running", "done"]
    assert [request.headers.get("last-event-id") for request in asked] == [None, "8", "8"]
    assert asked[0].headers["accept"] == "text/event-stream"


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(429, json={"error": {"code": "too_many_streams", "message": "m", "param": None}}),
        httpx.Response(404, json={"error": {"code": "no_such_path", "message": "m", "param": None}}),
    ],
)
def test_without_streams_the_job_is_asked_for(refusal):
    states, asked = followed(refusal, httpx.Response(200, json=JOB))
    assert states == ["running", "done"]
    assert asked[-1].url.path == "/v1/tenants/default/jobs/job_1"


def test_whoever_waits_longer_than_a_stream_may_last_is_given_the_longest():
    states, asked = followed(streamed(JOB | {"state": "done"}), wait_s=1_000_000.0)
    assert (states, asked[0].url.params["wait"]) == (["done"], "86400.0")


def test_a_proxy_that_gives_no_events_is_found_out():
    states, asked = followed(*(httpx.Response(200, text="<html>") for _ in range(events.TRIES)))
    assert states == ["done"]
    assert len(asked) == events.TRIES + 1


def test_a_job_that_there_is_not_is_no_reason_to_poll():
    missing = httpx.Response(404, json={"error": {"code": "not_found", "message": "m", "param": None}})
    with pytest.raises(client.NotFound):
        followed(missing)
