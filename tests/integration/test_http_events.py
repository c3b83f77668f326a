"""Jobs as server-sent events: what a stream says, when it ends, and what it costs."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from penstock.api.http import events, feeds
from penstock.client import NewDocument, NotFound
from penstock.client.events import read_events
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.catalog.tenants import ensure_installation
from penstock.storage.errors import Unavailable
from penstock.storage.ids import JobId, TenantId

from ..http_service import Service, running_service


@pytest.fixture
def service(tmp_path):
    options = {"api": {"search_threads": 2, "max_streams": 8, "max_streams_per_tenant": 4}}
    with running_service(tmp_path, **options) as running:
        yield running


def submitted(service: Service, *sources: str, collection: str = "docs", tenant: str = "default") -> str:
    with service.penstock(tenant) as client:
        client.create_collection(collection, model="hash")
        texts = [NewDocument(source=source, text=f"text of {source}") for source in sources]
        return client.submit(collection, texts).job.id


@contextmanager
def stream(service: Service, job_id: str, **headers: str) -> Iterator[httpx.Response]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    path = f"/v1/tenants/default/jobs/{job_id}/events"
    with service.http.stream("GET", path, headers=named, timeout=20) as response:
        yield response


def told(response: httpx.Response) -> Iterator[tuple[str, str, dict]]:
    return ((event.name, event.id, json.loads(event.data)) for event in read_events(response.iter_lines()))


def test_a_stream_begins_with_the_job_as_it_is_tells_each_move_and_ends_with_it(service):
    job_id = submitted(service, "a", "b")
    with stream(service, job_id) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-accel-buffering"] == "no"
        assert "no-transform" in response.headers["cache-control"]
        moves = told(response)
        name, first_id, job = next(moves)
        assert (name, job["state"], job["documents"]) == ("progress", "running", {"queued": 2})
        service.index()
        *_, (name, last_id, job) = moves
    assert (name, job["state"], job["documents"]) == ("done", "done", {"indexed": 2})
    assert first_id != last_id


def test_a_notice_makes_a_move_known_before_the_next_look(service, monkeypatch):
    monkeypatch.setattr(feeds, "EVERY_S", 60.0)
    job_id = submitted(service, "a")
    with stream(service, job_id) as response:
        moves = told(response)
        next(moves)
        cancel_job(service.components.catalog, tenant=TenantId("default"), job_id=JobId(job_id), now=time.time())
        service.components.feeds.wake()
        began = time.monotonic()
        assert next(moves)[0] == "cancelled"
    assert time.monotonic() - began < 15


def test_whoever_resumes_is_told_what_he_missed_and_nothing_twice(service):
    job_id = submitted(service, "a")
    with stream(service, job_id) as response:
        _, seen, _ = next(told(response))
    with stream(service, job_id, Last_Event_ID=seen) as response:
        service.index()
        moves = list(told(response))
    assert seen not in [identity for _, identity, _ in moves]
    name, last, _ = moves[-1]
    assert name == "done"
    with stream(service, job_id, Last_Event_ID=last) as response:
        assert response.status_code == 204
    with stream(service, job_id, Last_Event_ID="something else") as response:
        assert [name for name, _, _ in told(response)] == ["done"]


def test_a_silent_stream_beats(service, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    job_id = submitted(service, "a")
    with stream(service, job_id) as response:
        lines = response.iter_lines()
        assert sum(1 for line, _ in zip(lines, range(20), strict=False) if line.startswith(":")) >= 3


def test_a_stream_ends_when_its_time_is_over(service):
    job_id = submitted(service, "a")
    path = f"/v1/tenants/default/jobs/{job_id}/events?wait=0.2"
    with service.http.stream("GET", path) as response:
        assert [name for name, _, _ in told(response)] == ["progress"]


def test_streams_are_bounded_and_their_place_is_free_again(service):
    job_id = submitted(service, "a")
    opened = [service.http.stream("GET", f"/v1/tenants/default/jobs/{job_id}/events", timeout=20) for _ in range(4)]
    moves = [told(one.__enter__()) for one in opened]
    try:
        for one in moves:
            next(one)
        assert service.components.feeds.streams == 4
        with stream(service, job_id) as response:
            assert (response.status_code, response.headers["retry-after"]) == (429, "5")
            assert json.loads(response.read())["error"]["code"] == "too_many_streams"
    finally:
        for one in opened:
            one.__exit__(None, None, None)
    deadline = time.monotonic() + 20
    while service.components.feeds.streams and time.monotonic() < deadline:
        service.http.get("/healthz")
    with stream(service, job_id) as response:
        assert next(told(response))[0] == "progress"


def test_another_tenants_job_is_unknown(service):
    job_id = submitted(service, "a", tenant="other")
    with stream(service, job_id) as response:
        assert response.status_code == 404


def test_a_stream_says_when_the_job_is_gone(service):
    job_id = submitted(service, "a")
    with stream(service, job_id) as response:
        moves = told(response)
        next(moves)
        assert service.http.delete("/v1/tenants/default/collections/docs").status_code == 204
        assert next(moves)[0] == "gone"
        assert list(moves) == []


def test_the_server_ends_its_streams_when_it_is_told_to_stop(service):
    job_id = submitted(service, "a")
    with stream(service, job_id) as response:
        moves = told(response)
        next(moves)
        service.components.feeds.close()
        assert list(moves) == []


def test_a_stream_ends_when_its_key_was_replaced_and_outlives_a_catalog_that_is_away(service, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(events, "KEY_EVERY_S", 0.05)
    gate, asked = service.components.gate, []
    job_id = submitted(service, "a")
    look_up = gate._looked_up

    async def away(key: str) -> bool:
        asked.append(key)
        raise Unavailable("no catalog")

    with stream(service, job_id) as response:
        lines = response.iter_lines()
        monkeypatch.setattr(gate, "_looked_up", away)
        monkeypatch.setattr(gate, "_until", 0.0)  # it has forgotten that the key was the right one
        while len(asked) < 3:
            next(lines)
        monkeypatch.setattr(gate, "_looked_up", look_up)
        ensure_installation(service.components.catalog, now=2.0, key="pk_admin_another_one")
        assert all(line.startswith(":") or not line for line in lines), "and then it ends"
    with stream(service, job_id) as response:
        assert response.status_code == 401


def test_the_client_follows_a_job_to_its_end(service):
    job_id = submitted(service, "a", "b")
    with service.penstock() as client:
        moves = client.events(job_id)
        assert next(moves).documents == {"queued": 2}
        service.index()
        assert [job.state for job in moves][-1] == "done"
        with pytest.raises(NotFound):
            next(client.events("job_0"))


def test_the_client_polls_where_no_stream_is_to_be_had(service):
    service.components.feeds._most = 0
    job_id = submitted(service, "a")
    with service.penstock() as client:
        moves = client.events(job_id)
        assert next(moves).state == "running"
        threading.Timer(0.2, service.index).start()
        assert [job.state for job in moves][-1] == "done"
        other = submitted(service, "b", collection="more")
        assert [job.state for job in client.events(other, wait_s=0.3)][-1] == "running"


def test_a_look_that_fails_for_whatever_reason_ends_no_stream_and_the_next_one_tells(monkeypatch, caplog):
    monkeypatch.setattr(feeds, "EVERY_S", 0.01)
    monkeypatch.setattr(feeds, "GATHER_S", 0.0)
    failures = [ValueError("a row nobody can read"), Unavailable("no catalog")]

    class Info:
        id = "job_1"

    async def look(_ids):
        if failures:
            raise failures.pop(0)
        return {}

    async def follow() -> None:
        with feeds.JobFeeds(look, most=1, most_per_tenant=1).following(Info(), tenant="default") as follower:
            assert await follower.moved(within_s=20)
            assert follower.info is None

    asyncio.run(follow())
    assert [record.action for record in caplog.records] == ["jobs_not_followed"] * 2
    assert "a row nobody" not in "".join(record.getMessage() for record in caplog.records)


def test_many_streams_of_many_jobs_cost_one_read_a_look(monkeypatch):
    monkeypatch.setattr(feeds, "EVERY_S", 0.01)
    monkeypatch.setattr(feeds, "GATHER_S", 0.0)
    looks: list[list[str]] = []

    class Info:
        def __init__(self, job_id: str) -> None:
            self.id = job_id

    async def look(job_ids):
        looks.append(sorted(job_ids))
        return {}

    async def follow() -> None:
        found = feeds.JobFeeds(look, most=1_000, most_per_tenant=1_000)
        infos = [Info(f"job_{number % 10}") for number in range(500)]
        followers = [found.following(info, tenant="default") for info in infos]
        entered = [one.__enter__() for one in followers]
        assert await entered[0].moved(within_s=20)
        assert all(one.info is None for one in entered)  # they are gone
        for one in followers:
            one.__exit__(None, None, None)
        assert found.streams == 0

    asyncio.run(follow())
    assert len(looks) == 1
    assert len(looks[0]) == 10
