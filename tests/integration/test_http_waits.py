"""Requests that wait on purpose: how many may, and that they keep nobody else from being answered."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from penstock.api.http.places import LOOKS_PER_S, Places
from penstock.client import Busy, NewDocument
from penstock.storage.catalog.jobs import cancel_job
from penstock.storage.ids import JobId, TenantId

from ..http_service import Service, running_service

ENOUGH_S = 20.0


@pytest.fixture
def service(tmp_path):
    with running_service(tmp_path, api={"search_threads": 2, "max_waits": 3, "max_waits_per_tenant": 2}) as running:
        for tenant in ("default", "other"):
            with running.penstock(tenant) as client:
                client.create_collection("docs", model="hash")
        yield running


def submitted(service: Service, tenant: str = "default") -> str:
    with service.penstock(tenant) as client:
        return client.submit("docs", [NewDocument(source="a", text="some text")]).job.id


@contextmanager
def waiting(service: Service, ask: Callable[[], object]) -> Iterator[threading.Thread]:
    """Ask in another thread, and go on when the request waits."""
    before, thread = service.components.places.waiting, threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + ENOUGH_S
    while service.components.places.waiting == before:
        assert time.monotonic() < deadline
        assert thread.is_alive()
    yield thread
    thread.join(ENOUGH_S)


def test_waits_are_bounded_for_a_tenant_and_a_process_and_their_place_is_free_again(service):
    jobs = {tenant: submitted(service, tenant) for tenant in ("default", "other")}

    def path(tenant: str) -> str:
        return f"/v1/tenants/{tenant}/jobs/{jobs[tenant]}"

    def wait(tenant: str) -> Callable[[], httpx.Response]:
        return lambda: service.http.get(path(tenant), params={"wait": 20}, timeout=40)

    def refused(tenant: str) -> None:
        answer = wait(tenant)()
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_waits")
        assert int(answer.headers["Retry-After"]) >= 1
        assert service.http.get(path(tenant)).json()["state"] == "running", "whoever does not wait is answered"

    with ExitStack() as waits:
        for _ in range(2):
            waits.enter_context(waiting(service, wait("default")))
        refused("default")
        waits.enter_context(waiting(service, wait("other")))
        refused("other")
        for tenant, job in jobs.items():
            cancel_job(service.components.catalog, tenant=TenantId(tenant), job_id=JobId(job), now=time.time())
    assert service.components.places.waiting == 0
    assert wait("default")().json()["state"] == "cancelled"


def test_a_submission_that_finds_no_place_to_wait_is_accepted_and_answered_at_once(service):
    service.components.places._most = 0
    with service.penstock() as client:
        done = client.submit("docs", [NewDocument(source="a", text="some text")], wait_s=20)
        assert (done.accepted, done.pending, done.job.state) == (1, 1, "running")
        assert client.submit("docs", [NewDocument(source="a", text="some text")]).unchanged == 1


def test_a_search_waits_for_its_token_only_where_there_is_a_place(service):
    with service.penstock() as client:
        submitted(service)
        served = client.collection("docs").token
        service.components.places._most = 0
        assert client.search("docs", "text", min_token=served).hits == []
        service.index()
        newer = f"{served.rpartition(':')[0]}:99"
        with pytest.raises(Busy) as refused:
            client.search("docs", "text", min_token=newer)
        assert refused.value.code == "too_many_waits"
        assert [hit.document.source for hit in client.search("docs", "text").hits] == ["a"]


def test_a_crowd_that_waits_for_a_version_keeps_nobody_else_from_being_answered(tmp_path):
    """Each of them once held one of 32 threads, which deletes and retries needed too."""
    with running_service(tmp_path) as service, service.penstock() as client, ExitStack() as crowd:
        client.create_collection("docs", model="hash")
        submitted(service)
        newer = f"{client.collection('docs').token.rpartition(':')[0]}:99"
        answers: list[int] = []

        def wait() -> None:
            body = {"query": "text", "min_token": newer}
            answer = service.http.post("/v1/tenants/default/collections/docs/search", json=body, timeout=60)
            answers.append(answer.status_code)

        threads = [crowd.enter_context(waiting(service, wait)) for _ in range(40)]
        assert client.delete_documents("docs", sources=["a"]).deleted == 1
        assert client.search("docs", "text").hits == []
        assert all(thread.is_alive() for thread in threads), "they were answered before the delete was"
    assert answers == [504] * 40


def test_however_many_wait_together_they_look_only_so_often():
    places = Places(most=1_000, most_per_tenant=1_000)
    with ExitStack() as crowd:
        for _ in range(500):
            crowd.enter_context(places.taken("default"))
        assert places.waiting / places.least_pause_s == LOOKS_PER_S
    assert places.waiting == 0
