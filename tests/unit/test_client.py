"""The client words failures for people and asks again only where that is safe."""

import base64
import json
import re
import struct
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from penstock import client
from penstock.client import transport, wire

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
Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch):
    monkeypatch.setattr(transport, "RETRY_DELAYS_S", (0.0, 0.0))


def client_of(handler: Handler, **options: Any) -> client.Penstock:
    return client.Penstock("http://server", "secret", transport=httpx.MockTransport(handler), **options)


def failing(status: int, code: str, **headers: str) -> Handler:
    body = {"error": {"code": code, "message": "what happened", "param": "k"}}
    return lambda request: httpx.Response(status, json=body, headers=headers)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, client.Invalid),
        (401, client.Unauthorized),
        (404, client.NotFound),
        (409, client.Conflict),
        (413, client.TooLarge),
        (429, client.Busy),
        (500, client.ServerError),
        (503, client.Busy),
        (504, client.Busy),
    ],
)
def test_every_status_becomes_the_error_a_caller_can_act_on(status, kind):
    with pytest.raises(kind, match="what happened") as caught:
        client_of(failing(status, "word")).status()
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.status, caught.value.param) == ("word", status, "k")


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b"])
def test_what_names_another_path_is_refused_before_anything_is_sent(name):
    never = client_of(lambda request: pytest.fail(f"asked for {request.url}"))
    for ask in (never.collection, never.delete_collection):
        with pytest.raises(
            client.Invalid, match=f"collection name '{re.escape(name)}' is not allowed: use 1 to 64 of a-z"
        ):
            ask(name)
    for ask, told in (
        (never.job, "is no id of a job: "),
        (lambda name: never.document("books", name), "is no id of a document: "),
        (lambda name: never.snapshot("books", name), "names no version: write a number, a tag"),
        (lambda name: never.tag("books", 1, name), "is no tag: "),
    ):
        with pytest.raises(client.Invalid, match=f"^'{re.escape(name)}' {told}"):
            ask(name)
    with pytest.raises(client.Invalid, match=f"tenant name '{re.escape(name)}' is not allowed"):
        client_of(failing(404, "word"), tenant=name).collections()


def test_a_request_that_no_server_takes_is_refused_in_a_servers_words():
    never = client_of(lambda request: pytest.fail(f"asked for {request.url}"))
    for ask, field in (
        (lambda: never.search("books", ""), "query"),
        (lambda: never.search("books", "x", k=0), "k"),
        (lambda: never.search("books", "x", as_of=float("nan")), "as_of"),
        (lambda: never.known("books", {"s" * 3000: "0" * 64}), "source"),
        (lambda: never.upload("books", [client.Upload(content=b"", source="")]), "source"),
        (lambda: never.submit("books", []), "documents"),
    ):
        with pytest.raises(client.Invalid, match=f"field '{field}': ") as caught:
            ask()
        assert (caught.value.code, caught.value.param) == ("invalid_request", field)


def test_busy_says_when_to_ask_again():
    with pytest.raises(client.Busy) as caught:
        client_of(failing(503, "unavailable", **{"retry-after": "7"})).status()
    assert caught.value.retry_after_s == 7


def test_where_too_many_wait_at_the_server_the_client_waits_itself_and_then_asks():
    asked: list[str | None] = []

    def crowded(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("wait"))
        if asked[-1] is None:
            return httpx.Response(200, json=JOB)
        body = {"error": {"code": "too_many_waits", "message": "what happened", "param": None}}
        return httpx.Response(429, json=body, headers={"Retry-After": "2"})

    assert client_of(crowded).job("job_1", wait_s=0.01).id == "job_1"
    assert asked == ["0.01", None]
    with pytest.raises(client.Busy):
        client_of(failing(429, "backlog_full")).job("job_1", wait_s=0.01)


def test_an_answer_that_no_penstock_gives_is_a_server_error():
    with pytest.raises(client.ServerError, match="is it a Penstock server"):
        client_of(lambda request: httpx.Response(200, text="<html>hello</html>")).status()
    with pytest.raises(client.ServerError, match="without a reason"):
        client_of(lambda request: httpx.Response(500, text="<html>oops</html>")).status()


def test_reads_are_asked_again_when_the_connection_fails_and_writes_are_not():
    calls: list[str] = []

    def broken(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        raise httpx.ReadError("connection reset")

    with pytest.raises(client.Unreachable, match="http://server"):
        client_of(broken).tenants()
    assert calls == ["GET"] * 3
    calls.clear()
    with pytest.raises(client.Unreachable):
        client_of(broken).create_collection("books")
    assert calls == ["POST"]


def test_a_submission_is_asked_again_under_one_key_and_another_one_has_another():
    keys: list[str] = []

    def broken(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        raise httpx.ReadError("connection reset")

    for _ in range(2):
        with pytest.raises(client.Unreachable):
            client_of(broken).submit("books", [client.NewDocument(source="a", text="a")])
    assert (len(keys), len(set(keys[:3])), len(set(keys))) == (6, 1, 2)
    with pytest.raises(client.Unreachable):
        client_of(broken).upload("books", [client.Upload(content=b"a", source="a")], idempotency_key="mine")
    assert keys[6:] == ["mine"] * 3


@pytest.mark.parametrize("key", ["größer", "two words", "", "k" * 256, "line\n"])
def test_an_idempotency_key_that_no_header_takes_is_refused_before_anything_is_sent(key):
    sent: list[httpx.Request] = []
    with pytest.raises(client.Invalid, match="visible ASCII") as refused:
        client_of(sent.append).submit("books", [client.NewDocument(source="a", text="a")], idempotency_key=key)
    assert (refused.value.code, refused.value.param, sent) == ("invalid_idempotency_key", "idempotency_key", [])


def test_a_submission_whose_first_attempt_is_still_worked_on_is_asked_for_again():
    body = {"error": {"code": "idempotency_key_in_use", "message": "still being worked on", "param": None}}
    other = {"error": {"code": "conflict", "message": "the job was cancelled", "param": None}}
    answers = iter([httpx.Response(409, json=body), httpx.Response(409, json=other)])

    with pytest.raises(client.Conflict, match="cancelled"):
        client_of(lambda _: next(answers)).submit("books", [client.NewDocument(source="a", text="a")])


def test_a_search_survives_one_broken_connection():
    answers = iter([httpx.ConnectError("refused"), {"hits": [], "version": 3, "token": "gen_1:3", "took_ms": 1.0}])

    def flaky(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(200, json=answer)

    assert client_of(flaky).search("books", "a query").version == 3


def test_the_key_the_tenant_and_only_what_was_said_are_sent():
    seen: list[httpx.Request] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"job": JOB, "accepted": 1, "replaced": 0, "unchanged": 0})

    client_of(record, tenant="acme").submit("books", [client.NewDocument(source="a", text="b")], job_id="job_1")
    assert seen[0].headers["authorization"] == "Bearer secret"
    assert seen[0].url.path == "/v1/tenants/acme/collections/books/documents"
    assert json.loads(seen[0].content) == {"documents": [{"source": "a", "text": "b"}], "job_id": "job_1"}


def test_names_cannot_leave_their_place_in_the_path():
    paths: list[bytes] = []

    def record(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return failing(404, "unknown_collection")(request)

    with pytest.raises(client.NotFound):
        client_of(record, tenant="a?b").collection("c#d %2F é")
    assert paths == [b"/v1/tenants/a%3Fb/collections/c%23d%20%252F%20%C3%A9"]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), object(), "\ud800"])
def test_what_json_cannot_say_is_refused_and_never_sent_as_something_else(value):
    never = client_of(lambda request: pytest.fail(f"sent {request.content!r}"))
    for ask in (
        lambda: never.submit("c", [client.NewDocument(source="a", text="b", metadata={"x": value})]),
        lambda: never.search("c", "q", filter={"type": "eq", "key": "x", "value": value}),
        lambda: never.update_document("c", "doc_1", metadata={"x": value}),
    ):
        with pytest.raises(client.Invalid, match="cannot be written as JSON"):
            ask()


@pytest.mark.parametrize("key", ["", " ", "pk_a\nb", "pk_é", "pk_a b"])
def test_a_key_that_is_none_is_refused_without_being_told(key):
    with pytest.raises(client.Unauthorized) as caught:
        client.Penstock("http://server", key)
    assert "pk_" not in str(caught.value)


def test_a_key_from_a_file_may_end_its_line():
    keys: list[str] = []

    def record(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["authorization"])
        return failing(404, "word")(request)

    with pytest.raises(client.NotFound):
        client.Penstock("http://server", "pk_a\n", transport=httpx.MockTransport(record)).status()
    assert keys == ["Bearer pk_a"]


def test_a_number_that_is_none_reaches_the_server_in_a_form_so_that_it_can_refuse_it():
    bodies: list[bytes] = []

    def record(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return failing(400, "invalid_metadata")(request)

    with pytest.raises(client.Invalid):
        client_of(record).upload("c", [client.Upload(content=b"x", source="a", metadata={"x": float("nan")})])
    assert b'"metadata":{"x":NaN}' in bodies[0]


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda c: c.search("c", "q", k="3"), "field 'k': input should be a valid integer"),
        (lambda c: c.search("c", "q", as_of=True), "field 'as_of': input should be a valid number or a valid string"),
        (lambda c: c.delete_chunks("c", [True]), r"field 'chunk_ids\[0\]': input should be a valid integer"),
        (lambda c: c.change_retention("c", keep=3), "unknown field 'keep': did you mean 'keep_s'"),
    ],
)
def test_a_request_is_refused_in_the_server_s_words_before_it_is_sent(ask, told):
    with pytest.raises(client.Invalid, match=told):
        ask(client_of(lambda request: pytest.fail(f"sent {request.content!r}")))


def test_a_vector_is_sent_as_little_endian_float32():
    bodies: list[dict[str, Any]] = []

    def record(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(200, json={"hits": [], "version": 0, "token": "t", "took_ms": 0.1})

    client_of(record).search("books", vector=[1.0, -0.5], k=3)
    assert base64.b64decode(bodies[0].pop("vector")) == struct.pack("<2f", 1.0, -0.5)
    assert bodies[0] == {"k": 3}


def test_waiting_reports_progress_and_ends_with_the_job():
    states = iter(["running", "running", "done"])
    seen: list[str] = []
    waiting = client_of(lambda request: httpx.Response(200, json=JOB | {"state": next(states)}))
    done = waiting.wait("job_1", on_progress=lambda job: seen.append(job.state))
    assert (done.state, seen) == ("done", ["running", "running", "done"])


def test_waiting_gives_up_when_told_to():
    running = client_of(lambda request: httpx.Response(200, json=JOB))
    with pytest.raises(client.Busy, match="still running"):
        running.wait("job_1", timeout_s=0)


def test_uploads_send_one_entry_per_file_in_order(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"from disk")
    seen: list[bytes] = []

    def record(request: httpx.Request) -> httpx.Response:
        seen.append(request.read())
        return httpx.Response(202, json={"job": JOB, "accepted": 2, "replaced": 0, "unchanged": 0})

    files = [
        client.Upload(content=tmp_path / "a.txt", source="docs/a.txt", metadata={"n": 1}),
        client.Upload(content=b"from memory", source="docs/b.md", media_type="text/markdown"),
    ]
    client_of(record).upload("books", files)
    assert seen[0].index(b"from disk") < seen[0].index(b"from memory")
    assert b'"source":"docs/a.txt"' in seen[0]
    assert b'filename="b.md"' in seen[0]


def test_all_documents_walks_through_the_pages():
    asked: list[str | None] = []

    def page(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.params.get("after"))
        return httpx.Response(200, json={"data": [], "has_more": len(asked) < 3, "last_id": f"doc_{len(asked)}"})

    assert list(client_of(page).all_documents("books")) == []
    assert asked == [None, "doc_1", "doc_2"]


def test_requests_refuse_fields_that_do_not_exist_and_answers_accept_newer_ones():
    with pytest.raises(ValueError, match="sorce"):
        wire.NewDocument.model_validate({"sorce": "a", "source": "a", "text": "b"})
    assert wire.Tenant.model_validate({"name": "acme", "created_at": 0.0, "colour": "new"}).name == "acme"


def test_content_hash_is_blake2b_256_in_hex():
    assert client.content_hash(b"") == "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"


@pytest.mark.parametrize(
    "ask", [lambda it: it.fork("books", "copy"), lambda it: it.delete_documents("books", filter="year<2020")]
)
def test_what_the_server_does_for_every_document_before_it_answers_may_take_minutes(ask):
    given: list[float] = []

    def answer(request: httpx.Request) -> httpx.Response:
        given.append(request.extensions["timeout"]["read"])
        return httpx.Response(404, json={"error": {"code": "unknown_collection", "message": "none"}})

    with pytest.raises(client.NotFound):
        ask(client_of(answer, timeout_s=60.0))
    assert given == [660.0]
