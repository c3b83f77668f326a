"""Submitting over HTTP: once under one key, and answered when it is searchable, if one waits for that."""

import json
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from penstock.client import Conflict, Invalid, NewDocument, Penstock, Upload

from ..http_service import KEY, running_service

DOCUMENTS = "/v1/tenants/default/collections/docs/documents"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("submissions")) as service:
        yield service


@pytest.fixture
def service(running):
    with running.penstock() as penstock, running.penstock("other") as other:
        penstock.create_collection("docs")
        other.create_collection("docs")
        yield running
        penstock.delete_collection("docs")
        other.delete_collection("docs")


def body(source: str = "a", text: str = "one") -> dict:
    return {"documents": [{"source": source, "text": text}]}


def post(service, content: dict, key: str | None = None, **params):
    headers = {} if key is None else {"Idempotency-Key": key}
    return service.http.post(DOCUMENTS, json=content, headers=headers, params=params)


def test_the_same_request_again_is_told_the_same_job(service):
    first, again = post(service, body(), "k1"), post(service, body(), '"k1"')

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["job"]["id"] == first.json()["job"]["id"]
    assert again.json()["accepted"] == 1
    assert again.headers["location"] == first.headers["location"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"


def test_a_form_that_says_the_same_as_json_is_the_same_request(service):
    first = post(
        service, {"documents": [{"source": "a", "text": "one", "filename": "a.txt", "media_type": "text/plain"}]}, "k2"
    )
    form = {"documents": json.dumps([{"source": "a", "filename": "a.txt"}])}
    again = service.http.post(
        DOCUMENTS, data=form, files=[("files", ("a.txt", b"one"))], headers={"Idempotency-Key": "k2"}
    )

    assert again.headers.get("idempotency-replayed") == "true", again.text
    assert again.json()["job"]["id"] == first.json()["job"]["id"]


def test_another_request_under_the_same_key_is_422_and_names_the_way_out(service):
    post(service, body(), "k3")
    refused = post(service, body(text="two"), "k3")

    assert refused.status_code == 422
    assert refused.json()["error"]["code"] == "idempotency_key_reused"
    assert "new key" in refused.json()["error"]["message"]


def test_keys_of_one_tenant_mean_nothing_to_another(service):
    post(service, body(), "k4")
    with service.penstock("other") as other:
        submitted = other.submit("docs", [NewDocument(source="a", text="two")], idempotency_key="k4")
    assert submitted.accepted == 1


@pytest.mark.parametrize("key", ["", '""', "a b", "x" * 256, "ä".encode("latin-1")])
def test_what_is_no_key_is_refused_by_name(service, key):
    refused = service.http.post(DOCUMENTS, json=body(), headers={b"Idempotency-Key": key})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_idempotency_key")


def test_while_the_first_request_is_worked_on_the_second_is_409_and_then_told_its_answer(service):
    content = json.dumps(body()).encode()
    place = urlsplit(service.url)
    head = (
        f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nIdempotency-Key: k5\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection((place.hostname, place.port)) as first:
        first.sendall(head.encode() + content[:10])
        deadline = time.monotonic() + 20
        while ("default", "k5") not in service.components.keys_in_use._used:
            assert time.monotonic() < deadline
        second = post(service, body(), "k5")
        assert second.status_code == 409
        assert second.json()["error"]["code"] == "idempotency_key_in_use"
        assert second.headers["retry-after"] == "1"
        first.sendall(content[10:])
        answered = b"".join(iter(lambda: first.recv(65536), b""))
    assert answered.startswith(b"HTTP/1.1 202")
    assert post(service, body(), "k5").headers["idempotency-replayed"] == "true"


class Forgetful(httpx.BaseTransport):
    """Loses the first answers on their way, after the server has given them."""

    def __init__(self, losses: int) -> None:
        self.inner = httpx.HTTPTransport()
        self.losses = losses
        self.keys: list[str] = []

    def handle_request(self, request):
        self.keys.append(request.headers.get("idempotency-key", ""))
        answer = self.inner.handle_request(request)
        if self.losses:
            self.losses -= 1
            answer.read()
            answer.close()
            raise httpx.ReadError("lost on the way")
        return answer

    def close(self):
        self.inner.close()


@pytest.mark.parametrize("kind", ["json", "file"])
def test_the_clients_own_retries_have_one_key_and_make_one_job(service, tmp_path, kind):
    transport = Forgetful(2)
    with Penstock(service.url, KEY, transport=transport) as penstock:
        if kind == "json":
            submitted = penstock.submit("docs", [NewDocument(source="a", text="one")])
        else:
            path = tmp_path / "a.txt"
            path.write_text("one")
            submitted = penstock.upload("docs", [Upload(content=path, source="a")])
        assert (submitted.accepted, submitted.unchanged) == (1, 0)
        assert len(set(transport.keys)) == 1
        assert len(transport.keys) == 3
        assert len([job for job in penstock.jobs(limit=100).data if job.collection == "docs"]) == 1


def test_a_key_that_was_used_for_something_else_is_an_invalid_request_to_the_client(service):
    with service.penstock() as penstock:
        penstock.submit("docs", [NewDocument(source="a", text="one")], idempotency_key="k6")
        with pytest.raises(Invalid) as refused:
            penstock.submit("docs", [NewDocument(source="a", text="two")], idempotency_key="k6")
    assert refused.value.code == "idempotency_key_reused"
    assert not isinstance(refused.value, Conflict)


def test_a_submission_that_is_waited_for_is_answered_with_the_token_of_a_search_that_finds_it(service):
    indexing = threading.Thread(target=_index_soon, args=[service])
    indexing.start()
    answer = post(service, body(text="penstocks carry water"), wait=20)
    indexing.join()

    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["pending"], told["job"]["state"]) == (0, "done")
    with service.penstock() as penstock:
        found = penstock.search("docs", "penstocks carry water", min_token=told["token"])
        (document,) = penstock.documents("docs").data
    assert [hit.document.source for hit in found.hits] == ["a"]
    assert (document.searchable_version, document.state) == (1, "indexed")


def _index_soon(service) -> None:
    deadline = time.monotonic() + 20
    with service.penstock() as penstock:
        while not penstock.documents("docs", state="queued").data and time.monotonic() < deadline:
            time.sleep(0.01)
    service.index()


def test_when_the_time_is_over_the_answer_is_202_with_how_far_it_is(service):
    answer = post(service, body(), wait=0.2)

    assert answer.status_code == 202
    assert answer.json()["pending"] == 1
    assert answer.json()["token"] is None
    assert answer.json()["job"]["state"] == "running"


def test_documents_that_were_here_already_are_waited_for_too(service):
    post(service, body())
    unchanged = post(service, body(), wait=0.2)
    assert (unchanged.status_code, unchanged.json()["unchanged"], unchanged.json()["pending"]) == (202, 1, 1)

    service.index()
    unchanged = post(service, body(), wait=5)
    assert (unchanged.status_code, unchanged.json()["pending"]) == (200, 0)
    assert unchanged.json()["token"] is not None
    with service.penstock() as penstock:
        submitted = penstock.submit("docs", [NewDocument(source="a", text="one")], wait_s=5)
        assert submitted.token == unchanged.json()["token"]


@pytest.mark.parametrize("wait", ["-1", "31", "soon", "nan"])
def test_a_wait_without_bounds_is_refused(service, wait):
    refused = post(service, body(), wait=wait)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "wait")


def test_the_server_waits_without_holding_others_up(service):
    with httpx.Client(base_url=service.url, headers=dict(service.http.headers)) as slow:
        waiting = threading.Thread(target=lambda: slow.post(DOCUMENTS, json=body("slow"), params={"wait": 3}))
        waiting.start()
        began = time.monotonic()
        with service.penstock() as penstock:
            penstock.submit("docs", [NewDocument(source="quick", text="one")])
        assert time.monotonic() - began < 2.5
        waiting.join()


def test_documents_are_listed_by_the_beginning_of_their_source_whatever_their_state(service):
    post(service, {"documents": [{"source": name, "text": name} for name in ("a/1", "a/2", "b/1")]})

    def listed(**params):
        return service.http.get(DOCUMENTS, params={"prefix": "a/", **params})

    assert [one["source"] for one in listed().json()["data"]] == ["a/1", "a/2"]
    assert listed(state="failed").json()["data"] == []
    refused = listed(error_code="no_text")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "prefix")


TIMES = {"event_time": "2026-01-31T13:00+01:00", "expires_at": "2100-01-01"}
SECONDS = {"event_time": 1_769_860_800.0, "expires_at": 4_102_444_800.0}


def test_times_are_taken_as_iso_text_by_json_form_and_update_and_mean_the_same_as_seconds(service):
    began = time.time()
    with service.penstock() as penstock:
        penstock.submit("docs", [NewDocument(source="a", text="one", **TIMES)])
        penstock.upload("docs", [Upload(content=b"two", source="b", media_type="text/plain", **TIMES)])
        penstock.submit("docs", [NewDocument(source="c", text="three")])
        (c,) = penstock.documents("docs", source="c").data
        assert penstock.update_document("docs", c.id, **TIMES).changed
        shown = {one.source: penstock.document("docs", one.id) for one in penstock.documents("docs").data}
        assert {name: (one.event_time, one.expires_at) for name, one in shown.items()} == dict.fromkeys(
            "abc", tuple(SECONDS.values())
        )
        service.index()
        found = {hit.document.source: hit.document for hit in penstock.search("docs", "one two three").hits}
        assert {name: (one.event_time, one.expires_at) for name, one in found.items()} == dict.fromkeys(
            "abc", tuple(SECONDS.values())
        ), "hits show them too"
        assert all(began <= one.ingested_at <= time.time() for one in found.values())
        assert penstock.submit("docs", [NewDocument(source="a", text="one", **SECONDS)]).unchanged == 1
        assert not penstock.update_document("docs", c.id, **SECONDS).changed
        with pytest.raises(Invalid, match="event_time of 'a': 'now' is no date or time: write for example") as refused:
            penstock.submit("docs", [NewDocument(source="a", text="one", event_time="now")])
        assert (refused.value.code, refused.value.param) == ("invalid_metadata", "documents[0].event_time")
        with pytest.raises(Invalid, match="is no date or time") as refused:
            penstock.update_document("docs", c.id, expires_at="soon")
        assert refused.value.param == "expires_at"
