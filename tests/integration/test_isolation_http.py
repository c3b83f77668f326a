"""Two tenants, every route: what is another tenant's does not exist, down to the last byte of the answer."""

import re

import pytest

from penstock.client import NewDocument

from ..http_service import Service, running_service

SECRET = "the other tenant's words"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("isolation")) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(service: Service):
    """Ids of a collection ``shared`` of tenant ``other``; tenant ``default`` has an empty one of the same name."""
    with service.penstock() as mine, service.penstock("other") as other:
        mine.create_collection("shared")
        collection = other.create_collection("shared")
        other.create_collection("theirs")
        other.new_webhook_secret()
        other.set_webhook_default("https://example.com/theirs", collection="theirs")
        documents = [NewDocument(source="secret.txt", text=SECRET, metadata={"n": 1})]
        job = other.submit("shared", documents, webhook_url="https://example.com/hook").job
        service.index()
        document = other.documents("shared").data[0]
        return {
            "job": job.id,
            "document": document.id,
            "webhook": other.webhooks().data[0].id,
            "schedule": other.add_schedule("shared", "expire", every_s=3_600.0).id,
            "token": other.collection("shared").token,
            "collection": collection.id,
            "version": "1",
            "rollback": other.roll_back("shared", 1).id,
            "tag": "mine",
        }


ROUTES = [
    ("GET", "/collections/theirs", "theirs", "nothing"),
    ("DELETE", "/collections/theirs", "theirs", "nothing"),
    ("PATCH", "/collections/theirs", "theirs", "nothing"),
    ("GET", "/collections/theirs/documents", "theirs", "nothing"),
    ("POST", "/collections/theirs/documents:retry", "theirs", "nothing"),
    ("POST", "/collections/theirs/documents:drop", "theirs", "nothing"),
    ("POST", "/collections/theirs/documents", "theirs", "nothing"),
    ("POST", "/collections/theirs/documents:known", "theirs", "nothing"),
    ("POST", "/collections/theirs/search", "theirs", "nothing"),
    ("GET", "/collections/theirs/index", "theirs", "nothing"),
    ("GET", "/collections/theirs/queries", "theirs", "nothing"),
    ("DELETE", "/collections/theirs/queries", "theirs", "nothing"),
    ("GET", "/collections/theirs/judgements", "theirs", "nothing"),
    ("POST", "/collections/theirs/judgements", "theirs", "nothing"),
    ("DELETE", "/collections/theirs/judgements", "theirs", "nothing"),
    ("POST", "/collections/theirs/shadow", "theirs", "nothing"),
    ("GET", "/collections/theirs/snapshots", "theirs", "nothing"),
    ("GET", "/collections/theirs/snapshots/{version}", "theirs", "nothing"),
    ("GET", "/collections/theirs/snapshots/{version}/diff", "theirs", "nothing"),
    ("PUT", "/collections/theirs/snapshots/{version}/tags/{tag}", "theirs", "nothing"),
    ("DELETE", "/collections/theirs/snapshots/{version}/tags/{tag}", "theirs", "nothing"),
    ("POST", "/collections/theirs/snapshots/{version}/fork", "theirs", "nothing"),
    ("POST", "/collections/theirs/snapshots/{version}/rollback", "theirs", "nothing"),
    ("GET", "/collections/theirs/reembedding", "theirs", "nothing"),
    ("POST", "/collections/theirs/reembedding", "theirs", "nothing"),
    ("PATCH", "/collections/theirs/reembedding", "theirs", "nothing"),
    *[
        ("POST", f"/collections/theirs/reembedding/{what}", "theirs", "nothing")
        for what in ("pause", "resume", "cancel", "check", "switch", "rollback", "drop")
    ],
    ("GET", "/collections/shared/rollbacks/{rollback}", "{rollback}", "batch_nothing"),
    ("GET", "/collections/shared/documents/{document}", "{document}", "doc_nothing"),
    ("DELETE", "/collections/shared/documents/{document}", "{document}", "doc_nothing"),
    ("PATCH", "/collections/shared/documents/{document}", "{document}", "doc_nothing"),
    ("POST", "/collections/theirs/documents:delete", "theirs", "nothing"),
    ("POST", "/collections/theirs/chunks:delete", "theirs", "nothing"),
    ("GET", "/jobs/{job}", "{job}", "job_nothing"),
    ("PATCH", "/jobs/{job}", "{job}", "job_nothing"),
    ("POST", "/jobs/{job}/cancel", "{job}", "job_nothing"),
    ("GET", "/jobs?after={job}", "{job}", "job_nothing"),
    ("GET", "/jobs/{job}/events", "{job}", "job_nothing"),
    ("POST", "/webhooks/{webhook}/retry", "{webhook}", "msg_nothing"),
    ("POST", "/collections/theirs/schedules", "theirs", "nothing"),
    ("GET", "/schedules?collection=theirs", "theirs", "nothing"),
    ("GET", "/schedules/{schedule}", "{schedule}", "sched_nothing"),
    ("DELETE", "/schedules/{schedule}", "{schedule}", "sched_nothing"),
    ("POST", "/schedules/{schedule}/pause", "{schedule}", "sched_nothing"),
    ("POST", "/schedules/{schedule}/resume", "{schedule}", "sched_nothing"),
    ("POST", "/schedules/{schedule}/run", "{schedule}", "sched_nothing"),
    ("GET", "/schedules/{schedule}/runs", "{schedule}", "sched_nothing"),
]
BODIES = {
    "documents": {"documents": [{"source": "a", "text": "b"}]},
    "documents:known": {"documents": []},
    "search": {"query": SECRET},
    "fork": {"name": "copy"},
    "theirs": {"keep_versions": 3},
    "documents:delete": {"sources": ["secret.txt"]},
    "documents:retry": {"all": True},
    "documents:drop": {"all": True},
    "chunks:delete": {"chunk_ids": [1]},
    "judgements": {"judgements": []},
    "shadow": {},
    "reembedding": {"model": "hash-512"},
    "PATCH reembedding": {"budget_usd": 1.0},
    "switch": {},
    "{document}": {"title": "taken over"},
    "{job}": {"budget_usd": 1.0},
    "schedules": {"action": "expire", "every_s": 3_600.0},
}


@pytest.mark.parametrize(("method", "path", "named", "absent"), ROUTES)
def test_what_is_another_tenants_is_as_absent_as_what_never_was(service, theirs, method, path, named, absent):
    last = path.rpartition("/")[2]
    body = BODIES.get(f"{method} {last}", BODIES.get(last)) if method in ("POST", "PATCH") else None
    answers = []
    for name in (named.format(**theirs), absent):
        url = "/v1/tenants/default" + path.format(**theirs).replace(named.format(**theirs), name)
        answer = service.http.request(method, url, json=body)
        assert answer.status_code == 404
        headers = {key: value for key, value in answer.headers.items() if key not in {"date", "content-length"}}
        answers.append((answer.text.replace(name, "X"), headers))
    assert answers[0] == answers[1]


def test_an_estimate_for_what_is_another_tenants_is_one_for_a_collection_to_be_made(service, theirs):
    """What they have already, the text included, is neither unchanged, nor kept, nor cached for anybody else."""
    submission = {"documents": [{"source": "secret.txt", "text": SECRET}]}
    url = "/v1/tenants/default/collections/{}/documents:estimate"
    answers = [service.http.post(url.format(name), json=submission) for name in ("theirs", "nothing")]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["unchanged"], answers[0].json()["embedded"]) == (0, 1)


def test_lists_show_only_ones_own(service, theirs):
    base = "/v1/tenants/default"
    assert [one["name"] for one in service.http.get(f"{base}/collections").json()["data"]] == ["shared"]
    assert service.http.get(f"{base}/collections/shared/documents").json()["data"] == []
    assert service.http.get(f"{base}/jobs").json()["data"] == []
    assert service.http.get(f"{base}/webhooks").json()["data"] == []
    assert service.http.get(f"{base}/schedules").json()["data"] == []
    assert service.http.get("/v1/schedules").json()["data"] == []
    assert service.http.get(f"{base}/webhooks/default").json() == {"url": None, "collections": {}}


def test_nobody_is_told_of_another_tenants_collection(service, theirs):
    url = "/v1/tenants/default/webhooks/default"
    answers = [
        service.http.put(url, json={"url": "https://example.com/mine", "collection": name})
        for name in ("theirs", "nothing")
    ]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].text.replace("theirs", "nothing") == answers[1].text


def test_a_search_in_a_collection_of_the_same_name_finds_nothing_of_theirs(service, theirs):
    with service.penstock() as mine, service.penstock("other") as other:
        assert [hit.text for hit in other.search("shared", SECRET, min_token=theirs["token"]).hits] == [SECRET]
        assert mine.search("shared", SECRET).hits == []


def test_what_one_tenant_submits_the_other_need_not_know(service, theirs):
    known = {"documents": [{"source": "secret.txt", "content_hash": "00" * 32}]}
    answer = service.http.post("/v1/tenants/default/collections/shared/documents:known", json=known)
    assert answer.json() == {"known": [], "dead": []}


def test_a_job_of_another_tenant_takes_no_documents(service, theirs):
    body = {"documents": [{"source": "a", "text": "b"}], "job_id": theirs["job"]}
    path = "/v1/tenants/default/collections/shared/documents"
    wrong, absent = (service.http.post(path, json={**body, "job_id": job}) for job in (theirs["job"], "job_nothing"))
    assert wrong.status_code == absent.status_code == 404
    assert wrong.text.replace(theirs["job"], "X") == absent.text.replace("job_nothing", "X")
    assert service.http.get(path).json()["data"] == []


def test_what_another_tenant_has_cannot_be_deleted_or_described_and_is_not_found_like_nothing(service, theirs):
    base = "/v1/tenants/default/collections/shared"
    for ask in ({"ids": [theirs["document"]]}, {"ids": ["doc_nothing"]}, {"sources": ["secret.txt"]}):
        answer = service.http.post(f"{base}/documents:delete", json=ask)
        told = answer.json()
        assert (answer.status_code, told["deleted"], told["already_deleted"], told["not_found"]) == (202, 0, 0, 1)
        assert (told["sample"], told["missing"]) == ([], next(iter(ask.values())))
    found = service.http.post(f"{base}/documents:delete", json={"filter": "n=1"}).json()
    assert (found["deleted"], found["not_found"]) == (0, 0)
    chunks = service.http.post(f"{base}/chunks:delete", json={"chunk_ids": [1]}).json()
    assert (chunks["deleted"], chunks["not_found"]) == (0, 1)
    service.index()
    with service.penstock("other") as other:
        (document,) = other.documents("shared").data
        assert (document.state, document.version, document.title) == ("indexed", 1, None)
        assert other.collection("shared").chunks == 1


@pytest.mark.parametrize("action", ["retry", "drop"])
def test_what_died_at_another_tenant_is_not_found_like_nothing(service, theirs, action):
    path = f"/v1/tenants/default/collections/shared/documents:{action}"
    for ask in ({"ids": [theirs["document"]]}, {"ids": ["doc_nothing"]}, {"sources": ["secret.txt"]}):
        told = service.http.post(path, json=ask).json()
        assert (told["refused"], told["sample"]) == ({"not_found": 1}, [])
        (refusal,) = told["refusals"]
        assert (refusal["id"], refusal["source"]) == (next(iter(ask.values()))[0], None)
    for ask in ({"job_id": theirs["job"]}, {"job_id": "job_nothing"}, {"filter": "n=1"}, {"all": True}):
        told = service.http.post(path, json=ask).json()
        assert (told["refused"], told["sample"], told["refusals"]) == ({}, [], [])
        query = "state=failed" if "all" in ask else "&".join(f"{name}={value}" for name, value in ask.items())
        listed = service.http.get(f"/v1/tenants/default/collections/shared/documents?{query}").json()
        assert listed == {"data": [], "has_more": False, "last_id": None}


def test_a_token_of_another_tenant_says_no_more_than_a_made_up_one(service, theirs):
    path = "/v1/tenants/default/collections/shared/search"
    texts = [
        service.http.post(path, json={"query": "a", "min_token": token}) for token in (theirs["token"], "gen_none:1")
    ]
    assert texts[0].status_code == texts[1].status_code == 409
    assert texts[0].text == texts[1].text


def test_every_route_below_a_tenant_is_covered_here(service):
    """A route that is added must be added to ROUTES, or to the tests of lists and submissions above."""
    covered = {re.sub(r"\{\w+\}|theirs|shared|\?.*", "", f"{method} {path}") for method, path, *_ in ROUTES}
    covered |= {"GET /collections", "POST /collections", "GET /jobs", "GET /webhooks"}  # by the lists
    covered |= {"POST /webhooks/secret", "POST /webhooks/check", "POST /pause", "POST /resume"}  # they look nothing up
    covered |= {"GET /webhooks/default", "PUT /webhooks/default"}  # by the tests of lists and receivers
    covered |= {"GET /usage"}  # tests/integration/test_costs_http.py
    covered |= {"POST /collections//documents:estimate"}  # above
    covered |= {"GET /cache"}  # tests/integration/test_cache_http.py
    described = service.http.get("/openapi.json").json()["paths"]
    below = {
        re.sub(r"\{\w+\}", "", f"{method.upper()} {path.removeprefix('/v1/tenants/{tenant}')}")
        for path, methods in described.items()
        if path.startswith("/v1/tenants/{tenant}/")
        for method in methods
    }
    assert below == covered
