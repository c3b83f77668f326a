"""Whatever is sent, the answer is a result or an error of one shape, and never 500."""

import json
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.client import NewDocument
from penstock.client.wire import DocumentFields, SearchQuery, Submission

from ..http_service import running_service

COLLECTION = "/v1/tenants/default/collections/fuzz"
FEW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# Keys that mean something are likelier than noise to reach the code behind the first check.
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
words = st.sampled_from(["eq", "in", "and", "or", "exists", "contains", "type", "key", "value", "filters", "$source"])
anything = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
tokens = st.just("gen_1:1") | st.text(max_size=12)


def bodies_of(model, **plausible):
    fields = {name: plausible.get(name, anything) | anything for name in model.model_fields}
    return st.fixed_dictionaries({}, optional=fields | {"surprise": anything})


searches = bodies_of(
    SearchQuery,
    query=st.text(min_size=1, max_size=40),
    vector=st.lists(st.floats(width=32), min_size=384, max_size=384) | st.binary(max_size=64).map(lambda b: b.hex()),
    k=st.integers(-1, 1001),
    filter=st.fixed_dictionaries({"type": words, "key": st.text(max_size=5), "value": anything}),
    min_token=tokens,
    explain=st.booleans(),
)
documents = st.fixed_dictionaries(
    {"source": st.text(min_size=1, max_size=20)},
    optional={
        "text": st.text(max_size=50),
        "content_base64": st.sampled_from(["YQ==", "=", "ä"]),
        **{name: anything for name in DocumentFields.model_fields if name != "source"},
    },
)
submissions = bodies_of(Submission, documents=st.lists(documents, max_size=4), job_id=st.just("job_1"))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("fuzz")) as running:
        with running.penstock() as penstock:
            penstock.create_collection("fuzz")
            penstock.submit("fuzz", [NewDocument(source="a", text="some text", metadata={"key": 1})])
            running.index()
        yield running


def check(answer, *, good):
    assert answer.status_code in {good, 400, 404, 409, 413}, answer.text
    assert set(answer.json()) >= ({"error"} if answer.status_code != good else set())


@FEW
@given(body=searches | anything)
def test_no_search_body_makes_the_server_fail(service, body):
    check(service.http.post(f"{COLLECTION}/search", content=json.dumps(body)), good=200)


@FEW
@given(body=submissions | anything)
def test_no_submission_makes_the_server_fail(service, body):
    check(service.http.post(f"{COLLECTION}/documents", content=json.dumps(body)), good=202)


@FEW
@given(content=st.binary(max_size=200), boundary=st.sampled_from(["x", "--", "ä", ""]))
def test_no_form_makes_the_server_fail(service, content, boundary):
    headers = {"content-type": f"multipart/form-data; boundary={boundary}".encode()}
    body = b"--x\r\nContent-Disposition: form-data; name=files; filename=a\r\n\r\n" + content + b"\r\n--x--\r\n"
    check(service.http.post(f"{COLLECTION}/documents", content=body, headers=headers), good=202)


@FEW
@given(text=st.text(max_size=30))
def test_no_path_makes_the_server_fail(service, text):
    for path in (f"/v1/tenants/{quote(text, safe='')}", f"{COLLECTION}/documents/{quote(text, safe='')}"):
        answer = service.http.get(path)
        assert answer.status_code in {200, 400, 404}, (path, answer.text)
