"""The HTTP interface over real sockets, a real catalog and a real object store: what it answers when all is well."""

import base64
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from penstock import client
from penstock.api.http.components import CATALOG_THREADS
from penstock.client import Chunking, NewDocument, Upload
from penstock.storage.catalog import cancelling
from penstock.storage.presence import RoleInfo
from penstock.storage.search.planner import TYPICAL
from penstock.storage.search.snapshots import SWITCH_S

from ..http_service import KEY, Service, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("http")) as running:
        yield running


@pytest.fixture
def books(service: Service, request):
    """A client, and an empty collection of its own."""
    name = f"b{abs(hash(request.node.name)) % 10**12}"
    with service.penstock() as penstock:
        penstock.create_collection(name)
        yield penstock, name


def test_an_answer_tells_replaced_documents_from_new_ones_and_a_source_finds_its_document(books):
    penstock, name = books
    penstock.submit(name, [NewDocument(source="a b/ä.txt", text="old"), NewDocument(source="same", text="same")])
    told = penstock.submit(
        name,
        [
            NewDocument(source=source, text=text)
            for source, text in (("a b/ä.txt", "new"), ("same", "same"), ("c", "c"))
        ],
    )
    assert (told.accepted, told.replaced, told.unchanged) == (2, 1, 1)
    (found,) = penstock.documents(name, source="a b/ä.txt").data
    assert (found.source, found.version) == ("a b/ä.txt", 2)
    assert penstock.documents(name, source="a b").data == []
    with pytest.raises(client.Invalid):
        penstock.documents(name, source="a\0")


def test_submitted_documents_are_found_with_everything_their_producer_said(service, books):
    penstock, name = books
    document = NewDocument(source="a/b.txt", text="a penstock leads water", title="Water", metadata={"lang": "en"})
    submitted = penstock.submit(name, [document])
    assert (submitted.accepted, submitted.unchanged, submitted.job.state) == (1, 0, "running")
    service.index()
    result = penstock.search(name, "a penstock leads water", min_token=penstock.job(submitted.job.id).token)
    (hit,) = result.hits
    assert (hit.text, hit.start, hit.end) == ("a penstock leads water", 0, 22)
    assert (hit.document.source, hit.document.title, hit.document.metadata) == ("a/b.txt", "Water", {"lang": "en"})
    assert (hit.document.version, result.version) == (1, 1)
    assert hit.score == pytest.approx(1.0, abs=1e-5)


def test_the_answer_to_a_submission_names_its_job(service, books):
    _, name = books
    body = {"documents": [{"source": "x", "text": "y"}]}
    answer = service.http.post(f"/v1/tenants/default/collections/{name}/documents", json=body)
    assert answer.status_code == 202
    job = answer.json()["job"]
    assert answer.headers["location"] == f"/v1/tenants/default/jobs/{job['id']}"
    assert service.http.get(answer.headers["location"]).json()["id"] == job["id"]


def test_files_are_taken_as_forms_with_and_without_entries(service, books, tmp_path):
    penstock, name = books
    (tmp_path / "one.txt").write_bytes(b"the first file")
    files = [
        Upload(content=tmp_path / "one.txt", source="one", title="First", metadata={"n": 1}),
        Upload(content=b"the second file", source="two", media_type="text/markdown"),
    ]
    assert penstock.upload(name, files).accepted == 2
    path = f"/v1/tenants/default/collections/{name}/documents"
    bare = service.http.post(path, files=[("files", ("three.txt", b"the third file", "text/plain"))])
    assert bare.status_code == 202
    found = {document.source: document for document in penstock.all_documents(name)}
    assert set(found) == {"one", "two", "three.txt"}
    assert (found["one"].title, found["one"].filename, found["one"].metadata) == ("First", "one.txt", {"n": 1})
    assert (found["two"].media_type, found["one"].media_type) == ("text/markdown", None)
    assert found["three.txt"].size_bytes == len(b"the third file")


def test_a_large_file_arrives_byte_for_byte(service, books):
    penstock, name = books
    data = bytes(range(256)) * (3 << 12)  # above what is kept in memory, with every byte a boundary could confuse
    penstock.upload(name, [Upload(content=data, source="large.bin")])
    assert penstock.known(name, {"large.bin": client.content_hash(data)}) == {"large.bin"}
    cancelled = penstock.cancel(penstock.jobs(limit=1).data[0].id)  # its bytes are no text for the next test
    assert cancelled.state == "cancelled"


def test_content_may_be_base64(service, books):
    penstock, name = books
    content = base64.b64encode("größer".encode()).decode()
    penstock.submit(name, [NewDocument(source="b", filename="b.txt", content_base64=content)])
    assert penstock.known(name, {"b": client.content_hash("größer".encode())}) == {"b"}


def test_unchanged_documents_are_known_and_cost_nothing(service, books):
    penstock, name = books
    documents = [NewDocument(source=str(n), text=f"text {n}") for n in range(3)]
    first = penstock.submit(name, documents)
    again = penstock.submit(name, documents)
    assert (again.accepted, again.unchanged, again.job.state) == (0, 3, "done")
    assert first.job.id != again.job.id
    hashes = {"0": client.content_hash(b"text 0"), "1": client.content_hash(b"other"), "9": client.content_hash(b"")}
    assert penstock.known(name, hashes) == {"0"}


def test_a_job_takes_further_submissions(service, books):
    penstock, name = books
    job = penstock.submit(name, [NewDocument(source="1", text="one")]).job
    more = penstock.submit(name, [NewDocument(source="2", text="two")], job_id=job.id).job
    assert more.id == job.id
    assert more.documents == {"queued": 2}


def test_a_cancelled_job_takes_nothing_more_and_its_documents_say_so(service, books):
    penstock, name = books
    job = penstock.submit(name, [NewDocument(source="1", text="one")]).job
    assert penstock.cancel(job.id).state == "cancelled"
    assert penstock.cancel(job.id).state == "cancelled"
    with pytest.raises(client.Conflict, match="cancelled"):
        penstock.submit(name, [NewDocument(source="2", text="two")], job_id=job.id)
    (document,) = penstock.documents(name, state="cancelled").data
    assert document.source == "1"


def test_others_are_answered_while_many_large_jobs_are_being_cancelled(service, books, monkeypatch):
    """Each step of a cancel waits for the catalog's write lock, and there is one thread for a catalog call per core."""
    monkeypatch.setattr(cancelling, "AT_ONCE", 1)
    penstock, name = books
    many = CATALOG_THREADS + 2
    jobs = [
        penstock.submit(name, [NewDocument(source=f"{n}.{m}", text=".") for m in range(3)]).job for n in range(many)
    ]
    cancels = service.components.cancels
    with ThreadPoolExecutor(many) as threads:
        with service.components.catalog.write():
            answers = [threads.submit(penstock.cancel, job.id) for job in jobs]
            deadline = time.monotonic() + 20
            while cancels.borrowed_tokens + cancels.statistics().tasks_waiting < many:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            assert penstock.job(jobs[0].id).state == "running"
        done = [answer.result() for answer in answers]
    assert [(job.state, job.documents) for job in done] == [("cancelled", {"cancelled": 3})] * many


def test_documents_come_in_pages_that_miss_none(service, books):
    penstock, name = books
    penstock.submit(name, [NewDocument(source=f"{n:02}", text=f"text {n}") for n in range(5)])
    sources, after = [], None
    while True:
        page = penstock.documents(name, limit=2, after=after)
        sources += [document.source for document in page.data]
        after = page.last_id
        if not page.has_more:
            break
    assert sorted(sources) == ["00", "01", "02", "03", "04"]
    shown = penstock.document(name, penstock.documents(name).data[0].id)
    assert (shown.state, shown.version) == ("queued", 1)


def test_a_document_is_found_in_its_own_collection_only(service, books):
    penstock, name = books
    penstock.create_collection("elsewhere")
    penstock.submit(name, [NewDocument(source="here", text="here")])
    with pytest.raises(client.NotFound):
        penstock.document("elsewhere", penstock.documents(name).data[0].id)


def test_asking_for_a_job_waits_until_it_is_over(service, books):
    penstock, name = books
    job = penstock.submit(name, [NewDocument(source="1", text="worth waiting for")]).job
    started = time.monotonic()
    assert penstock.job(job.id, wait_s=0.3).state == "running"
    assert time.monotonic() - started >= 0.3
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(penstock.job(job.id, wait_s=30)))
    waiter.start()
    service.index()
    waiter.join(20)
    assert answers[0].state == "done"
    assert answers[0].documents == {"indexed": 1}


def test_jobs_are_listed_newest_first(service, books):
    penstock, name = books
    ids = [penstock.submit(name, [NewDocument(source=str(n), text=str(n))]).job.id for n in range(3)]
    page = penstock.jobs(limit=2)
    assert [job.id for job in page.data] == [ids[2], ids[1]]
    assert penstock.jobs(limit=1, after=page.last_id).data[0].id == ids[0]


def test_a_search_by_vector_takes_numbers_and_base64_alike(service, books):
    penstock, name = books
    penstock.submit(name, [NewDocument(source="v", text="a vector to find")])
    service.index()
    token = penstock.collection(name).token
    vector = service.components.embedders.of("hash", 384).embed_query("a vector to find").tolist()
    packed = penstock.search(name, vector=vector, min_token=token)
    numbers = service.http.post(f"/v1/tenants/default/collections/{name}/search", json={"vector": vector})
    assert packed.hits[0].document.source == "v"
    assert numbers.json()["hits"] == [hit.model_dump() for hit in packed.hits]


def test_filters_decide_what_is_found_in_json_and_as_text(service, books):
    penstock, name = books
    texts = [NewDocument(source=str(year), text=f"of {year}", metadata={"year": year}) for year in (2020, 2021, 2022)]
    penstock.submit(name, texts)
    service.index()
    token = penstock.collection(name).token
    wanted = {"type": "gte", "key": "year", "value": 2021}
    for filter_ in (wanted, "year>=2021", [wanted]):
        found = penstock.search(name, "of", filter=filter_, min_token=token)
        assert {hit.document.source for hit in found.hits} == {"2021", "2022"}


def test_explain_says_how_it_was_searched(service, books):
    penstock, name = books
    penstock.submit(name, [NewDocument(source="e", text="explain me")])
    service.index()
    found = penstock.search(name, "explain me", explain=True, min_token=penstock.collection(name).token)
    assert found.explain is not None
    assert (found.explain["model"], found.explain["segments"][0]["accepted"]) == ("hash", 1)
    assert penstock.search(name, "explain me").explain is None


def test_a_collection_without_a_published_version_finds_nothing(service, books):
    penstock, name = books
    result = penstock.search(name, "anything")
    assert (result.hits, result.version) == ([], 0)


def test_a_new_version_is_found_without_a_notification(service, books):
    penstock, name = books
    for text in ("first words", "second words"):
        penstock.submit(name, [NewDocument(source="same", text=text)])
        service.index()
        deadline = time.monotonic() + 10
        while not any(hit.text == text for hit in penstock.search(name, text).hits):
            assert time.monotonic() < deadline
    assert len(penstock.search(name, "words").hits) == 1


def test_making_a_collection_twice_is_harmless_unless_it_differs(service):
    path = "/v1/tenants/default/collections"
    assert service.http.post(path, json={"name": "twice"}).status_code == 201
    same = service.http.post(path, json={"name": "twice"})
    assert (same.status_code, same.json()["name"], same.json()["model"]) == (200, "twice", "hash")
    other = service.http.post(path, json={"name": "twice", "chunking": {"size_tokens": 77}})
    assert other.status_code == 409
    assert "77" in other.json()["error"]["message"]
    with service.penstock() as penstock, pytest.raises(client.Conflict):
        penstock.create_collection("twice", model="hash-256")


def test_a_collection_keeps_the_configuration_it_was_made_with(service):
    with service.penstock() as penstock:
        chunking = Chunking(strategy="tokens", size_tokens=64, overlap_tokens=8)
        made = penstock.create_collection(
            "configured", model="hash-512", chunking=chunking, metric="dot", quantization="int8"
        )
        assert (made.model, made.dimensions, made.metric) == ("hash-512", 512, "dot")
        assert made.chunking == {"strategy": "tokens", "size_tokens": 64, "overlap_tokens": 8}
        assert penstock.collection("configured") == made
        assert made in penstock.collections()


def test_a_deleted_collection_is_gone_and_its_name_is_free(service, books):
    penstock, name = books
    penstock.submit(name, [NewDocument(source="gone", text="soon gone")])
    service.index()
    penstock.search(name, "soon gone", min_token=penstock.collection(name).token)
    penstock.delete_collection(name)
    with pytest.raises(client.NotFound):
        penstock.collection(name)
    with pytest.raises(client.NotFound):
        penstock.search(name, "soon gone")
    penstock.create_collection(name)
    assert penstock.search(name, "soon gone").hits == []


def test_making_a_tenant_twice_is_harmless(service):
    assert service.http.post("/v1/tenants", json={"name": "third"}).status_code == 201
    assert service.http.post("/v1/tenants", json={"name": "third"}).status_code == 200
    with service.penstock() as penstock:
        assert {"default", "other", "third"} <= {tenant.name for tenant in penstock.tenants()}
    assert service.http.get("/v1/tenants/third").json()["name"] == "third"


def test_status_shows_stages_jobs_and_collections(service, books):
    penstock, name = books
    job = penstock.submit(name, [NewDocument(source="s", text="status")]).job
    status = penstock.status()
    assert status.queued_documents >= 1
    assert {"chunk", "embed", "index"} <= set(status.stages)
    assert job.id in [running.id for running in status.jobs]
    assert (name, "hash") in [(collection.name, collection.model) for collection in status.collections]


def test_waiting_for_a_job_reports_progress(service, books):
    penstock, name = books
    job = penstock.submit(name, [NewDocument(source="w", text="wait")]).job
    seen = []
    timer = threading.Timer(0.3, service.index)
    timer.start()
    done = penstock.wait(job.id, timeout_s=20, on_progress=seen.append, every_s=0.1)
    timer.join()
    assert (done.state, seen[0].state, seen[-1].state) == ("done", "running", "done")


def test_health_needs_no_key_and_readiness_names_what_is_degraded(service):
    assert httpx.get(f"{service.url}/healthz").json()["ok"] is True
    ready = httpx.get(f"{service.url}/readyz")
    assert (ready.status_code, ready.json()["ok"], ready.json()["reasons"]) == (200, True, [])
    assert ready.json()["degraded"]  # no queue server runs here


def test_load_balancers_may_ask_by_head(service, monkeypatch):
    for path in ("/healthz", "/readyz"):
        answer = httpx.head(f"{service.url}{path}")
        assert (answer.status_code, answer.content) == (200, b"")
    monkeypatch.setattr(service.components.embedders, "mend", lambda: None)
    monkeypatch.setitem(service.components.embedders.failures, "hash", "weights are missing")
    assert service.http.head("/readyz").status_code == 503
    assert service.http.head("/v1/status").status_code == 405


def test_readiness_says_why_not(service, monkeypatch):
    embedders = service.components.embedders
    monkeypatch.setattr(embedders, "mend", lambda: None)
    monkeypatch.setitem(embedders.failures, "openai/of-one-tenant", "no key")
    answer = service.http.get("/readyz")
    assert answer.status_code == 200
    assert "model: openai/of-one-tenant: no key" in answer.json()["degraded"]
    monkeypatch.setitem(embedders.failures, "hash", "weights are missing")
    answer = service.http.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["model: hash: weights are missing"]


def test_readiness_tells_those_without_the_key_only_which_component_is_amiss(service, monkeypatch, caplog):
    components = service.components
    assert service.http.get("/readyz").status_code == 200
    monkeypatch.setattr(components.embedders, "mend", lambda: None)
    monkeypatch.setitem(components.embedders.failures, "hash", "weights of /srv/secret are missing")
    monkeypatch.setitem(components.embedders.failures, "openai/of-one-tenant", "no key for db.internal")
    still = RoleInfo("embed", "worker-7.internal", 4711, 0.0, 1000.0, 1.0, None)
    monkeypatch.setattr(components.presence, "roles", lambda: [still])
    told = service.http.get("/readyz").json()  # looks anew
    assert "worker-7.internal:4711 has stood still" in "".join(told["degraded"])
    assert "weights of /srv/secret are missing" in "".join(told["reasons"])
    for headers in ({}, {"Authorization": "Bearer of-somebody-else"}, {"Authorization": "Basic x"}):
        answer = httpx.get(f"{service.url}/readyz", headers=headers)
        expected = {"ok": False, "reasons": ["model"], "degraded": ["model", "redis", "role embed"]}
        assert (answer.status_code, answer.json()) == (503, expected)
    (logged,) = [one for one in caplog.records if getattr(one, "action", None) == "not_ready"]
    assert "weights of /srv/secret are missing" in logged.getMessage()


def test_a_model_that_failed_is_tried_again(service):
    embedders = service.components.embedders
    embedders.failures["hash"] = "was away for a moment"
    deadline = time.monotonic() + 20
    while service.http.get("/readyz").status_code != 200:
        assert time.monotonic() < deadline
    assert "hash" not in embedders.failures


def test_metrics_name_routes_and_only_one_figure_names_tenants(service, books):
    penstock, name = books
    penstock.search(name, "an unrepeatable query")
    service.http.get("/v1/tenants/default/collections/some-secret-name")
    text = service.http.get("/metrics").text
    assert 'route="/v1/tenants/{tenant}/collections/{collection}/search"' in text
    assert 'penstock_batches{stage="embed",state="ready"} 0.0' in text
    for figure in (
        "penstock_oldest_batch_seconds",
        "penstock_snapshots_refused_total",
        "penstock_embedding_cache_hits",
    ):
        assert figure in text
    for secret in (name, "some-secret-name", "unrepeatable", KEY):
        assert secret not in text
    named = {line.partition("{")[0] for line in text.splitlines() if 'tenant="' in line}
    assert named <= {"penstock_oldest_waiting_seconds"}


def test_the_interface_describes_itself_without_fetching_anything(service):
    page = service.http.get("/docs").text
    for shown in ("https://example.com/hooks/penstock", "https://api.openai.com/v1"):
        page = page.replace(shown, "an address in an example")
    assert "/v1/tenants/{tenant}/collections/{collection}/search" in page
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    json.loads(service.http.get("/openapi.json").text)


def test_a_server_compiles_what_a_search_runs_and_measures_its_cost_before_it_answers(service):
    assert service.components.snapshots._opener.costs != TYPICAL
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
