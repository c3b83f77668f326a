"""What the HTTP interface refuses, how it says so, and that nothing is half accepted."""

import errno
import gzip
import json
import socket
from pathlib import Path
from typing import get_args, get_origin
from urllib.parse import urlsplit

import httpx
import pytest

from penstock import client
from penstock.api.http.queries import Parameters
from penstock.client import NewDocument, Upload
from penstock.storage.errors import Damaged, Unavailable
from penstock.storage.metadata import MAX_BYTES

from ..http_service import KEY, Service, running_service

LIMITS = {"max_document_bytes": 1000, "max_submission_bytes": 200_000, "max_documents_per_submission": 5}
ROOT = Path(__file__).parents[2]
SEVERAL = {list, set, tuple, frozenset}
COLLECTION = "/v1/tenants/default/collections/errors"
DOCUMENTS = f"{COLLECTION}/documents"
SEARCH = f"{COLLECTION}/search"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("http"), limits=LIMITS) as running:
        with running.penstock() as penstock:
            penstock.create_collection("errors")
        yield running


@pytest.fixture(scope="module")
def keyless(service):
    with httpx.Client(base_url=service.url) as http:
        yield http


def documents_of(service: Service) -> int:
    with service.penstock() as penstock:
        return len(list(penstock.all_documents("errors")))


def jobs_of(service: Service) -> list[str]:
    return [job["id"] for job in service.http.get("/v1/tenants/default/jobs", params={"limit": 100}).json()["data"]]


def refused(answer: httpx.Response, status: int) -> dict[str, str]:
    """Return the error, after checking that it has the one shape every error has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    error = answer.json()["error"]
    assert sorted(error) == ["code", "message", "param"]
    assert "Traceback" not in error["message"]
    return error


def submission(**changes):
    return {"documents": [{"source": "a", "text": "b", **changes}]}


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (b"{", None, "not JSON"),
        (b"[]", None, "object"),
        (b"", None, "empty"),
        (b"\xff\xfe", None, "not JSON"),
        (b'{"documents": [{"source": "\\ud800", "text": "b"}]}', None, "not JSON"),
        ({}, "documents", "missing"),
        ({"documents": []}, "documents", "at least 1"),
        ({"documents": "x"}, "documents", "array"),
        ({"document": []}, None, "documents"),
        ({"documents": [{"sorce": "a", "text": "b"}]}, None, "sorce"),
        (submission(txt="c"), "documents[0].txt", "did you mean 'text'"),
        (submission(content_base64="YQ=="), "documents[0]", "exactly one"),
        ({"documents": [{"source": "a"}]}, "documents[0]", "exactly one"),
        ({"documents": [{"source": "a", "content_base64": "?"}]}, "documents[0].content_base64", "base64"),
        ({"documents": [{"source": "", "text": "b"}]}, "documents[0].source", "at least 1"),
        ({"documents": [{"source": "x" * 3000, "text": "b"}]}, "documents[0].source", "at most"),
        ({"documents": [{"source": "ä" * 2000, "text": "b"}]}, None, "bytes"),
        (submission(source="nul\x00"), "documents[0].source", "NUL"),
        (submission(title="nul\x00"), "documents[0].title", "NUL"),
        (submission(event_time="soon"), "documents[0].event_time", "'soon' is no date or time"),
        (submission(event_time=[1]), "documents[0].event_time", "number or a valid string"),
        (submission(expires_at="2026-13-01"), "documents[0].expires_at", "no date or time that there is"),
        (b'{"documents": [{"source": "a", "text": "b", "event_time": NaN}]}', "documents[0].event_time", "finite"),
        (b'{"documents": [{"source": "a", "text": "b", "metadata": {"n": NaN}}]}', "documents[0].metadata", "n"),
        (submission(metadata=[1]), "documents[0].metadata", "object"),
        (submission(metadata={"$source": 1}), "documents[0].metadata", "built in"),
        (submission(metadata={"n": 10**30}), "documents[0].metadata", "64 bits"),
        (submission(metadata={"t": "x" * MAX_BYTES}), "documents[0].metadata", "too large"),
        ({"documents": [{"source": "a", "text": "b"}] * 2}, None, "given twice"),
        ({**submission(), "job_id": 5}, "job_id", "string"),
    ],
)
def test_a_wrong_submission_names_its_field_and_leaves_nothing(service, body, param, words):
    before = jobs_of(service)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    error = refused(service.http.post(DOCUMENTS, content=content), 400)
    assert words in error["message"]
    assert param is None or error["param"] == param
    assert (documents_of(service), jobs_of(service)) == (0, before)


def test_one_wrong_document_keeps_all_others_out(service):
    good = [{"source": str(n), "text": "good"} for n in range(3)]
    body = {"documents": [*good, {"source": "bad", "content_base64": "!"}]}
    assert refused(service.http.post(DOCUMENTS, json=body), 400)["param"] == "documents[3].content_base64"
    assert documents_of(service) == 0


def test_limits_are_refused_with_413(service):
    many = {"documents": [{"source": str(n), "text": "x"} for n in range(6)]}
    assert refused(service.http.post(DOCUMENTS, json=many), 413)["code"] == "too_many_documents"
    error = refused(service.http.post(DOCUMENTS, json=submission(text="x" * 1001)), 413)
    assert (error["code"], error["param"]) == ("document_too_large", "documents[0]")
    huge = service.http.post(DOCUMENTS, content=b" " * 300_000)
    assert refused(huge, 413)["code"] == "request_too_large"
    with service.penstock() as penstock, pytest.raises(client.TooLarge, match="several"):
        penstock.upload("errors", [Upload(content=b"x", source=str(n)) for n in range(6)])
    assert documents_of(service) == 0


def test_a_body_that_does_not_say_its_size_is_measured_while_it_comes(service):
    chunks = (b" " * 50_000 for _ in range(8))
    assert refused(service.http.post(DOCUMENTS, content=chunks), 413)["code"] == "request_too_large"
    head = b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    form = (head if n == 0 else b" " * 50_000 for n in range(8))
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    assert refused(service.http.post(DOCUMENTS, content=form, headers=headers), 413)["code"] == "request_too_large"


def test_a_search_body_may_not_be_endless(service):
    assert refused(service.http.post(SEARCH, content=b" " * (2 << 20)), 413)["code"] == "request_too_large"


def test_a_caller_that_sends_far_too_much_can_finish_and_still_hears_why(service):
    size = 30_000_000
    head = f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection((urlsplit(service.url).hostname, urlsplit(service.url).port)) as connection:
        connection.settimeout(20)
        connection.sendall(head.encode() + b"x" * size)  # reset half way, unless the server reads on
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413")
    with service.penstock() as penstock, pytest.raises(client.TooLarge, match="larger than"):
        penstock.upload("errors", [Upload(content=b"x" * size, source="huge")])


@pytest.mark.parametrize(
    ("content", "param", "words"),
    [
        (b"--xyz\r\n", None, "cut off"),
        (b'--xyz\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nhalf', None, "cut off"),
        (b"no boundary at all", None, "cannot be read"),
        (b'--xyz\r\nContent-Disposition: form-data; name="file"\r\n\r\nx\r\n--xyz--\r\n', "file", "unknown form field"),
        (b'--xyz\r\nContent-Disposition: form-data; name="files"\r\n\r\nx\r\n--xyz--\r\n', "files", "takes files"),
        (
            b'--xyz\r\nContent-Disposition: form-data; name="job_id"\r\n\r\nx\r\n--xyz--\r\n',
            "documents",
            "no documents",
        ),
        (b"--xyz--\r\n", "documents", "no documents"),
    ],
)
def test_a_broken_form_is_refused_whole(service, content, param, words):
    headers = {"content-type": "multipart/form-data; boundary=xyz"}
    error = refused(service.http.post(DOCUMENTS, content=content, headers=headers), 400)
    assert words in error["message"]
    assert error["param"] == param
    assert documents_of(service) == 0


def test_entries_of_a_form_must_fit_its_files(service):
    files = [("files", ("a.txt", b"a")), ("files", ("b.txt", b"b"))]
    for documents, words in (
        ('[{"source": "a"}]', "2 files came with 1"),
        ('[{"sourc": "a"}, {"source": "b"}]', "did you mean 'source'"),
        ("[", "not JSON"),
        ('[{"source": "a"}, {"source": "a"}]', "given twice"),
    ):
        error = refused(service.http.post(DOCUMENTS, files=files, data={"documents": documents}), 400)
        assert words in error["message"]
    assert documents_of(service) == 0


def test_an_upload_that_breaks_off_leaves_nothing(service):
    before = jobs_of(service)
    host, port = urlsplit(service.url).hostname, urlsplit(service.url).port
    with socket.create_connection((host, port)) as connection:
        head = f"POST {DOCUMENTS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"documents": [')
    assert service.http.get("/healthz").status_code == 200
    assert (documents_of(service), jobs_of(service)) == (0, before)


def test_another_media_type_is_refused(service):
    answer = service.http.post(DOCUMENTS, content=b"a,b", headers={"content-type": "text/csv"})
    assert refused(answer, 415)["code"] == "unsupported_media_type"


@pytest.mark.parametrize(("encoding", "named"), [("gzip", "gzip"), ("identity, br", "br"), ("GZip", "GZip")])
def test_a_body_that_is_encoded_is_refused_with_what_to_send_instead(service, encoding, named):
    body = gzip.compress(b'{"query": "a"}')
    answer = service.http.post(SEARCH, content=body, headers={"content-encoding": encoding})
    error = refused(answer, 415)
    assert (error["code"], error["param"]) == ("unsupported_content_encoding", "Content-Encoding")
    assert f"'{named}': send it as it is" in error["message"]
    assert answer.headers["accept-encoding"] == "identity"
    plain = service.http.post(SEARCH, content=b'{"query": "a"}', headers={"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize("order", [1, -1])
def test_a_request_with_two_lengths_is_refused_and_what_follows_it_is_not_read(service, order):
    lengths = "\r\n".join(["Content-Length: 4", "Transfer-Encoding: chunked"][::order])
    head = f"POST {SEARCH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n{lengths}\r\n\r\n"
    hidden = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.create_connection((urlsplit(service.url).hostname, urlsplit(service.url).port)) as connection:
        connection.settimeout(20)
        connection.sendall(f"{head}0\r\n\r\n{hidden}".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 400")
    assert (answer.count(b"HTTP/1.1"), b"ambiguous_length" in answer) == (1, True)


def test_json_as_curl_sends_it_is_taken(service):
    declared = {"content-type": "application/x-www-form-urlencoded"}
    assert service.http.post(SEARCH, content=b'{"query": "a"}', headers=declared).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "query", "either"),
        ({"query": "a", "vector": [1.0]}, "query", "either"),
        ({"query": ""}, "query", "at least 1"),
        ({"query": " "}, "query", "empty"),
        ({"query": "a", "k": 0}, "k", "greater than or equal"),
        ({"query": "a", "k": 1001}, "k", "1,000"),
        ({"query": "a", "k": "many"}, "k", "integer"),
        ({"query": "a", "k": "3"}, "k", "integer"),
        ({"query": "a", "k": True}, "k", "integer"),
        ({"query": "a", "k": 3.5}, "k", "integer"),
        ({"query": "a", "k": 3.0}, "k", "integer"),
        ({"query": 5}, "query", "string"),
        ({"query": "a", "explain": "true"}, "explain", "boolean"),
        ({"query": "a", "version": "1"}, "version", "integer"),
        ({"query": "a", "as_of": True}, "as_of", "field 'as_of': input should be a valid number or a valid string"),
        ({"vector": [1.0, True]}, "vector[1]", "field 'vector[1]': input should be a valid number"),
        ({"vector": ["1"]}, "vector[0]", "number"),
        ({"vector": 7}, "vector", "field 'vector': input should be a valid array or a valid string"),
        ({"query": "a", "tag": "current"}, "tag", "searched without a tag"),
        ({"query": "a", "ef": 0}, "ef", "greater than or equal"),
        ({"query": "a", "limit": 3}, "limit", "unknown field"),
        ({"query": "a", "filtr": {}}, "filtr", "did you mean 'filter'"),
        ({"query": "a", "filter": {"type": "eq", "key": "lang"}}, "filter", "lang"),
        ({"query": "a", "filter": {"type": "equals", "key": "lang", "value": 1}}, "filter", "equals"),
        ({"query": "a", "filter": 5}, "filter", "an object, a valid array or a valid string"),
        ({"vector": [1.0, 2.0]}, "vector", "2 dimensions"),
        ({"vector": []}, "vector", "0 dimensions"),
        ({"vector": [0.0] * 384}, "vector", "zero"),
        ({"vector": [1e300] * 384}, "vector", "component"),
        ({"vector": "not base64"}, "vector", "base64"),
        ({"vector": "AAAA"}, "vector", "3 bytes"),
        ({"query": "a", "min_token": "x"}, "min_token", "not a token"),
        ({"query": "a", "min_token": "gen_1:99999999999999999999"}, "min_token", "not a token"),
    ],
)
def test_a_wrong_search_names_its_field(service, body, param, words):
    error = refused(service.http.post(SEARCH, json=body), 400)
    assert error["param"] == param
    assert words in error["message"]


def test_a_token_of_elsewhere_is_a_conflict(service):
    error = refused(service.http.post(SEARCH, json={"query": "a", "min_token": "gen_other:1"}), 409)
    assert (error["code"], error["param"]) == ("other_generation", "min_token")


def test_a_version_that_does_not_come_is_an_error_and_no_empty_result(service, monkeypatch):
    monkeypatch.setattr("penstock.api.http.tokens.WAIT_S", 0.1)
    token = service.http.get(COLLECTION).json()["token"]
    ahead = token.rpartition(":")[0] + ":7"
    answer = service.http.post(SEARCH, json={"query": "a", "min_token": ahead})
    assert refused(answer, 504)["code"] == "not_yet"
    assert int(answer.headers["retry-after"]) >= 1
    with service.penstock() as penstock, pytest.raises(client.Busy):
        penstock.search("errors", "a", min_token=ahead)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"name": "No Spaces"}, None, "a-z"),
        ({"name": "x", "model": "nonsense"}, "model", "minilm"),
        ({"name": "x", "model": "hash-255"}, "model", "256 to 4096"),
        ({"name": "x", "model": "minilm", "chunking": {"size_tokens": 5000}}, "chunking", "minilm"),
        ({"name": "x", "chunking": {"size_tokens": 10, "overlap_tokens": 9}}, "chunking", "overlap"),
        ({"name": "x", "chunking": {"size": 10}}, "chunking.size", "did you mean 'size_tokens'"),
        ({"name": "x", "chunking": {"strategy": "magic"}}, "chunking.strategy", "auto"),
        ({"name": "x", "metric": "manhattan"}, "metric", "cosine"),
        ({}, "name", "missing"),
    ],
)
def test_a_wrong_collection_is_not_made(service, body, param, words):
    error = refused(service.http.post("/v1/tenants/default/collections", json=body), 400)
    assert words in error["message"]
    assert param is None or error["param"] == param
    names = [one["name"] for one in service.http.get("/v1/tenants/default/collections").json()["data"]]
    assert names == ["errors"]


def test_one_collection_too_many_is_refused_until_another_is_deleted(service, monkeypatch):
    path = "/v1/tenants/default/collections"
    few = service.settings.limits.model_copy(update={"max_collections_per_tenant": 1})
    monkeypatch.setitem(vars(service.components.settings), "limits", few)
    error = refused(service.http.post(path, json={"name": "second"}), 409)
    assert error["code"] == "limit_reached"
    assert "limits.max_collections_per_tenant" in error["message"]
    assert service.http.post(path, json={"name": "errors"}).status_code == 200, "there already"
    with service.penstock() as penstock, pytest.raises(client.Conflict, match="1 collections"):
        penstock.create_collection("second")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/v1/tenants/nobody/collections", "unknown_tenant"),
        ("/v1/tenants/nobody/collections/x", "unknown_tenant"),
        ("/v1/tenants/nobody/jobs", "unknown_tenant"),
        ("/v1/tenants/default/collections/nothing", "unknown_collection"),
        ("/v1/tenants/default/collections/nothing/documents", "unknown_collection"),
        (f"{DOCUMENTS}/doc_none", "not_found"),
        ("/v1/tenants/default/jobs/job_none", "not_found"),
        ("/v1/tenants/default/jobs?after=job_none", "not_found"),
        ("/v1/tenants/default/webhooks?after=msg_none", "not_found"),
        ("/v1/nothing", "no_such_path"),
        ("/v1/tenants/default/jobs/a%00b", "no_such_path"),
    ],
)
def test_what_does_not_exist_is_404_and_says_what(service, path, code):
    assert refused(service.http.get(path), 404)["code"] == code


def test_submitting_to_an_unknown_collection_says_how_to_make_it(service):
    path = "/v1/tenants/default/collections/nothing/documents"
    error = refused(service.http.post(path, json=submission()), 404)
    assert "POST /v1/tenants/default/collections" in error["message"]


def test_submitting_to_an_unknown_job_names_the_field(service):
    for job_id in ("job_none", "nul\x00", "x" * 100):
        error = refused(service.http.post(DOCUMENTS, json={**submission(), "job_id": job_id}), 404)
        assert error["param"] == "job_id"
        form = {"files": [("files", ("a.txt", b"a"))], "data": {"job_id": job_id}}
        assert refused(service.http.post(DOCUMENTS, **form), 404)["param"] == "job_id"


def test_a_source_that_no_document_can_have_is_not_known(service):
    asked = {"documents": [{"source": "nul\x00", "content_hash": "00" * 32}]}
    assert service.http.post(f"{DOCUMENTS}:known", json=asked).json() == {"known": [], "dead": []}


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (f"{DOCUMENTS}?limit=0", "limit"),
        (f"{DOCUMENTS}?state=lost", "state"),
        (f"{DOCUMENTS}?limt=3", "limt"),
        ("/v1/tenants/default/jobs/job_1?wait=31", "wait"),
        ("/v1/tenants/UPPER/jobs", "tenant"),
        (f"{COLLECTION}/snapshots?before={10**30}", "before"),
        (f"{COLLECTION}/snapshots/2024-13-01", "snapshot"),
        (f"{COLLECTION}/snapshots/2024-05-31T12:00:00+99:00", "snapshot"),
        ("/v1/tenants/default/collections/a.b", "collection"),
    ],
)
def test_wrong_parameters_and_names_are_named(service, path, param):
    assert refused(service.http.get(path), 400)["param"] == param


def test_an_unknown_parameter_is_told_what_this_route_has_and_not_what_others_have(service):
    error = refused(service.http.get(f"{COLLECTION}/index?xyz=3"), 400)
    assert error["message"] == "unknown query parameter 'xyz': the only query parameter here is 'probe'"
    error = refused(service.http.get(f"{DOCUMENTS}?after=../x"), 400)
    assert error["message"] == "query parameter 'after': it is no id: give the `last_id` of the page before"
    assert refused(service.http.get(f"{DOCUMENTS}?after=2"), 400)["message"] == error["message"]
    error = refused(service.http.get("/v1/tenants/default/jobs?xyz=3"), 400)
    assert error["message"] == "unknown query parameter 'xyz': there are after, limit"


def test_the_page_on_searching_shows_what_a_number_with_a_point_is_answered(service):
    shown = (ROOT / "docs" / "search.md").read_text()
    asked = """{"query": "pears", "k": 3.0}"""
    assert f"-d '{asked}'" in shown
    answer = service.http.post(SEARCH, content=asked)
    assert answer.status_code == 400
    assert answer.text in shown


@pytest.mark.parametrize("again", ["before=1&limit=2&before=2", "before=1&limit=2&before=1"])
def test_a_parameter_that_is_given_twice_is_refused_rather_than_the_last_one_taken(service, again):
    error = refused(service.http.get(f"{COLLECTION}/snapshots?{again}"), 400)
    assert (error["code"], error["param"]) == ("invalid_request", "before")
    assert error["message"] == "query parameter 'before' is given 2 times: give it once"


def test_an_unknown_parameter_that_is_given_twice_is_unknown(service):
    error = refused(service.http.get(f"{COLLECTION}/snapshots?xyz=1&xyz=2"), 400)
    assert error["message"].startswith("unknown query parameter 'xyz'")


def test_no_parameter_is_a_list_which_is_why_none_may_be_repeated():
    fields = [field for kind in Parameters.__subclasses__() for field in kind.model_fields.values()]
    assert fields
    for field in fields:
        assert not {get_origin(one) or one for one in (field.annotation, *get_args(field.annotation))} & SEVERAL


@pytest.mark.parametrize("move", ["true", "1", "yes"])
def test_what_a_parameter_says_is_read_from_text(service, move):
    assert service.http.get(f"{DOCUMENTS}?limit=3&state=indexed").status_code == 200
    assert service.http.get("/v1/tenants/default/jobs/job_0?wait=0.5").status_code == 404
    assert service.http.put(f"{COLLECTION}/snapshots/9/tags/a?move={move}").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", COLLECTION), ("DELETE", f"{DOCUMENTS}/doc_0"), ("POST", SEARCH), ("GET", "/v1/tenants")],
)
def test_a_parameter_where_there_are_none_is_refused_rather_than_ignored(service, method, path):
    error = refused(service.http.request(method, f"{path}?dry_run=true"), 400)
    assert (error["param"], "no query parameters here" in error["message"]) == ("dry_run", True)
    assert service.http.get(COLLECTION).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", COLLECTION), ("DELETE", f"{DOCUMENTS}/doc_0"), ("POST", f"{COLLECTION}/snapshots/1/rollback")],
)
def test_a_body_where_there_is_none_is_refused_rather_than_ignored(service, method, path):
    error = refused(service.http.request(method, path, json={"dry_run": True}), 400)
    assert error["message"].startswith(f"{method} takes no body here")
    assert service.http.get(COLLECTION).status_code == 200
    answer = service.http.request("POST", "/v1/tenants/default/jobs/job_0/cancel", json={})
    assert refused(answer, 404)["code"] == "not_found"


@pytest.mark.parametrize("model", ["", "openai/" + "x" * 200])
def test_a_model_name_that_cannot_be_one_is_never_taken_for_the_usual_model(service, model):
    asked = {"name": "nameless", "model": model}
    assert refused(service.http.post("/v1/tenants/default/collections", json=asked), 400)["param"] == "model"


def test_a_change_that_changes_nothing_is_refused_and_says_what_can_be_changed(service):
    error = refused(service.http.patch(COLLECTION, json={}), 400)
    assert "give keep_versions or keep_s" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", f"{COLLECTION}/chunks:delete", {"chunk_ids": [True]}, "chunk_ids[0]"),
        ("POST", f"{COLLECTION}/chunks:delete", {"chunk_ids": ["1"]}, "chunk_ids[0]"),
        ("POST", f"{COLLECTION}/chunks:delete", {"chunk_ids": [1.5]}, "chunk_ids[0]"),
        ("POST", f"{DOCUMENTS}:delete", {"ids": [1]}, "ids[0]"),
        ("POST", f"{DOCUMENTS}:delete", {"ids": ["a"], "dry_run": "yes"}, "dry_run"),
        (
            "POST",
            DOCUMENTS,
            {"documents": [{"source": "a", "text": "b", "event_time": "5"}]},
            "documents[0].event_time",
        ),
        (
            "POST",
            DOCUMENTS,
            {"documents": [{"source": "a", "text": "b", "expires_at": True}]},
            "documents[0].expires_at",
        ),
        ("PATCH", f"{DOCUMENTS}/doc_0", {"event_time": "5"}, "event_time"),
        ("PATCH", COLLECTION, {"keep_versions": "5"}, "keep_versions"),
        ("PATCH", COLLECTION, {"keep_s": True}, "keep_s"),
        ("POST", "/v1/tenants/default/collections", {"name": 5}, "name"),
        (
            "POST",
            "/v1/tenants/default/collections",
            {"name": "x", "chunking": {"size_tokens": "100"}},
            "chunking.size_tokens",
        ),
    ],
)
def test_a_value_of_another_type_is_never_taken_for_what_it_looks_like(service, method, path, body, param):
    assert refused(service.http.request(method, path, json=body), 400)["param"] == param


@pytest.mark.parametrize("name", ["event_time", "expires_at"])
@pytest.mark.parametrize("moment", [1e300, -1e18, 1_717_156_800_000])
def test_a_time_that_no_calendar_has_is_taken_for_milliseconds_and_refused(service, name, moment):
    documents = [{"source": "a", "text": "b"}, {"source": "b", "text": "b", name: moment}]
    error = refused(service.http.post(DOCUMENTS, json={"documents": documents}), 400)
    assert (error["code"], error["param"]) == ("invalid_metadata", f"documents[1].{name}")
    assert "use seconds since 1970, not milliseconds" in error["message"]


def test_a_name_that_is_not_allowed_is_the_field_to_change(service):
    for path in ("/v1/tenants", "/v1/tenants/default/collections"):
        assert refused(service.http.post(path, json={"name": "A b"}), 400)["param"] == "name"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "the body is empty: send a JSON object"),
        ("[]", "the body: input should be an object"),
        ('{"query": "a", "filter": ' + "[" * 1_000 + "]" * 1_000 + "}", "the body is nested too deeply"),
    ],
)
def test_a_body_that_is_no_object_says_what_it_is(service, body, told):
    answer = service.http.post(SEARCH, content=body, headers={"content-type": "application/json"})
    assert told in refused(answer, 400)["message"]


def test_a_fork_without_a_name_is_told_the_only_field_there_is(service):
    error = refused(service.http.post(f"{COLLECTION}/snapshots/1/fork", json={"xyz": "b"}), 400)
    assert error["message"].startswith("unknown field 'xyz': the only field here is 'name'")


def test_a_method_that_is_not_answered_is_405(service):
    answer = service.http.put(DOCUMENTS)
    assert refused(answer, 405)["code"] == "no_such_method"
    assert answer.headers["allow"]


CLOSED = [
    ("GET", "/v1/tenants"),
    ("POST", DOCUMENTS),
    ("POST", SEARCH),
    ("GET", "/v1/status"),
    ("GET", "/metrics"),
    ("GET", "/v1/nothing"),
    ("GET", "/healthz/"),
    ("GET", "/HEALTHZ"),
    ("DELETE", COLLECTION),
]


@pytest.mark.parametrize(("method", "path"), CLOSED)
@pytest.mark.parametrize(
    "key", [None, "Bearer wrong", "Bearer", "Basic x", KEY, f"Bearer {KEY}x", "Bearer " + "k" * 5000]
)
def test_everything_else_needs_the_key(keyless, method, path, key):
    headers = {} if key is None else {"authorization": key}
    answer = keyless.request(method, path, headers=headers)
    assert refused(answer, 401)["code"] == "unauthorized"
    assert answer.headers["www-authenticate"].startswith("Bearer ")


def test_a_wrong_key_is_not_remembered_as_right(service, keyless):
    assert service.http.get("/v1/status").status_code == 200
    assert keyless.get("/v1/status", headers={"authorization": "Bearer nope"}).status_code == 401
    assert service.http.get("/v1/status").status_code == 200


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (RuntimeError("the secret reason"), 500, "internal"),
        (Unavailable("the catalog did not answer"), 503, "unavailable"),
        (Damaged("segment x is damaged"), 500, "damaged"),
        (OSError(errno.ENOSPC, "No space left on device"), 503, "disk_full"),
    ],
)
def test_a_failing_search_is_an_error_and_never_an_empty_page(service, monkeypatch, caplog, error, status, code):
    def failing(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("penstock.api.http.searching.search", failing)
    body = refused(service.http.post(SEARCH, json={"query": "a"}), status)
    assert body["code"] == code
    if code == "internal":
        assert "secret reason" not in body["message"]
        assert "secret reason" in caplog.text  # the log has it, under the id that the caller was given
        assert body["message"].split("'")[1] in caplog.text
    if code == "damaged":
        service.http.post(SEARCH, json={"query": "a"})
        assert caplog.text.count("segment x is damaged") == 1  # each minute, however many search


def test_a_search_in_an_unknown_collection_is_404_and_no_empty_page(service):
    with service.penstock() as penstock, pytest.raises(client.NotFound, match="nothing"):
        penstock.search("nothing", "a")
    with service.penstock(key="wrong") as penstock, pytest.raises(client.Unauthorized):
        penstock.search("errors", "a")


def test_nothing_is_accepted_when_the_catalog_fails(service, monkeypatch):
    def failing(*_: object, **__: object) -> None:
        raise Unavailable("the catalog did not answer")

    monkeypatch.setattr("penstock.api.http.routes.documents.accept", failing)
    with service.penstock() as penstock, pytest.raises(client.Busy):
        penstock.submit("errors", [NewDocument(source="a", text="b")])
    assert documents_of(service) == 0
