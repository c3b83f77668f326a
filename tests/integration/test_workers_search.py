"""The search role in one process: what it answers, and that it answers always."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.settings.model import Limits, Settings
from penstock.storage.catalog.collections import create_collection
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import generations
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.figures import Figure, Figures
from penstock.storage.ids import TenantId
from penstock.storage.search.planner import TYPICAL
from penstock.storage.search.snapshots import SWITCH_S
from penstock.workers import search
from penstock.workers.errors import TooManyWaits
from penstock.workers.liveness import Liveness
from penstock.workers.search import Searcher
from penstock.workers.waiting import WaitingPlaces

ACME = TenantId("acme")
ADDRESS = {"tenant": "acme", "collection": "docs"}


@pytest.fixture
def searcher(tmp_path: Path) -> Iterator[Searcher]:
    settings = Settings(
        data_dir=tmp_path,
        broker_url="redis://127.0.0.1:1/0",
        embedding={"model": "hash-256"},
        limits=Limits(max_document_bytes=100, max_documents_per_submission=3),
    )
    searcher = Searcher(settings, liveness=Liveness())
    searcher.open()
    catalog = searcher._components.catalog
    migrate(catalog)
    for tenant in ("acme", "other"):
        create_tenant(catalog, tenant, now=time.time())
    create_collection(
        catalog,
        tenant=ACME,
        name="docs",
        model="hash-256",
        dimensions=256,
        metric="cosine",
        chunking={"strategy": "recursive", "size_tokens": 16, "overlap_tokens": 0},
        shards=1,
        now=time.time(),
    )
    yield searcher
    searcher.close()


def test_an_empty_collection_is_searched_without_a_hit(searcher):
    answer = searcher.search(**ADDRESS, query="anything")

    assert answer["hits"] == []
    assert answer["version"] == 0
    assert answer["took_ms"] > 0
    assert answer["explain"] is None


def test_explain_is_what_http_answers_and_fits_into_a_message(searcher):
    told = json.loads(json.dumps(searcher.search(**ADDRESS, query="anything", explain=True)))["explain"]

    assert (told["model"], told["metric"], told["segments"]) == ("hash-256", "cosine", [])
    assert min(told[part] for part in ("embedding_ms", "waiting_ms", "searching_ms")) >= 0
    assert searcher.search(**ADDRESS, query="anything", explain="yes")["error"]["code"] == "invalid_request"


def test_what_is_submitted_is_committed_when_the_answer_comes_and_twice_is_harmless(searcher):
    documents = [{"source": "a", "text": "some text", "metadata": {"year": 2024}}]
    first = searcher.submit(**ADDRESS, documents=documents)
    second = searcher.submit(**ADDRESS, documents=documents)

    assert (first["accepted"], second["accepted"], second["unchanged"]) == (1, 0, 1)
    assert get_job(searcher._components.catalog, tenant=ACME, job_id=first["job_id"]).documents == {"queued": 1}


def test_times_are_taken_as_iso_text_and_mean_the_same_as_seconds(searcher):
    document = {"source": "a", "text": "some text"}
    first = searcher.submit(**ADDRESS, documents=[{**document, "event_time": "2026-01-31", "expires_at": "2100-01-01"}])
    second = searcher.submit(
        **ADDRESS, documents=[{**document, "event_time": 1_769_817_600, "expires_at": 4_102_444_800.0}]
    )
    assert (first["accepted"], second["unchanged"]) == (1, 1)
    error = searcher.submit(**ADDRESS, documents=[{**document, "event_time": "soon"}])["error"]
    assert (error["code"], error["message"][:41]) == ("invalid_metadata", "event_time of 'a': 'soon' is no date or t")


def test_what_is_deleted_is_logged_when_the_answer_comes_and_twice_is_harmless(searcher):
    searcher.submit(**ADDRESS, documents=[{"source": "a", "text": "some text"}])
    dry = searcher.delete(**ADDRESS, sources=["a", "b"], dry_run=True)
    assert dry == {"job_id": None, "deleted": 1, "already_deleted": 0, "not_found": 1, "changed": 0}
    first = searcher.delete(**ADDRESS, sources=["a", "b"])
    second = searcher.delete(**ADDRESS, sources=["a"])

    assert (first["deleted"], first["not_found"]) == (1, 1)
    assert (second["deleted"], second["already_deleted"]) == (0, 1)
    assert get_job(searcher._components.catalog, tenant=ACME, job_id=first["job_id"]).documents == {"deleting": 1}
    assert searcher.delete(**ADDRESS, filter="year=2024")["deleted"] == 0
    for asked, code in (({}, "invalid_query"), ({"filter": "a"}, "invalid_filter"), ({"ids": []}, "invalid_request")):
        assert searcher.delete(**ADDRESS, **asked)["error"]["code"] == code
    others = searcher.delete(tenant="other", collection="docs", sources=["a"])
    assert others["error"]["code"] == "not_found"


def test_a_submission_can_go_on_with_a_job_and_its_budget(searcher):
    first = searcher.submit(**ADDRESS, documents=[{"source": "a", "text": "some text"}], budget_usd=2.5)
    second = searcher.submit(**ADDRESS, documents=[{"source": "b", "text": "more"}], job_id=first["job_id"])

    assert second["job_id"] == first["job_id"]
    told = searcher.job(tenant="acme", job_id=first["job_id"])
    assert (told["budget_usd"], told["cost_usd"], told["held_up"]) == (2.5, 0.0, None)


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"query": "x", "k": 0}, "invalid_query"),
        ({"query": "x", "k": 1_001}, "invalid_query"),
        ({"query": "x" * 65_537}, "invalid_query"),
        ({"query": "x", "ef": 4_097}, "invalid_query"),
        ({"vector": [1.0, 2.0]}, "invalid_query"),
        ({"query": "x", "filter": {"type": "nearly"}}, "invalid_filter"),
        ({"query": "x", "collection": "nope"}, "not_found"),
        ({"query": "x", "tenant": "other"}, "not_found"),
        ({"query": "x", "min_token": "yesterday"}, "invalid_request"),
        ({"query": "x", "min_token": "gen_other:1"}, "invalid_request"),
        ({"query": "x", "colection": "docs"}, "invalid_request"),
    ],
)
def test_a_search_that_cannot_be_answered_says_why(searcher, values, code):
    assert searcher.search(**{**ADDRESS, **values})["error"]["code"] == code


def test_a_version_that_does_not_come_is_waited_for_and_then_answered(searcher):
    token = searcher.search(**ADDRESS, query="x")["token"].replace(":0", ":9")

    assert searcher.search(**ADDRESS, query="x", min_token=token, timeout_s=0.05)["error"]["code"] == "not_yet"


def test_those_who_wait_leave_threads_to_others_and_the_next_one_is_told_to_come_again(searcher):
    token = searcher.search(**ADDRESS, query="x")["token"]
    waits = {**ADDRESS, "query": "x", "min_token": token.replace(":0", ":9")}
    with ExitStack() as others:
        for _ in range(searcher._places.most):
            others.enter_context(searcher._places.taken())
        for ask in (searcher.search, partial(searcher.delete, filter="year=1")):
            asked = waits if ask == searcher.search else {**ADDRESS, "min_token": waits["min_token"]}
            error = ask(**asked, timeout_s=30.0)["error"]
            assert (error["code"], error["retry_after_s"]) == ("too_many_waits", 2.0)
        assert searcher.search(**{**waits, "min_token": token})["hits"] == []  # it has not to wait
    assert searcher.search(**waits, timeout_s=0.0)["error"]["code"] == "not_yet"


@pytest.mark.parametrize(("threads", "most"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_half_of_the_threads_may_wait_and_each_place_is_given_back(threads, most):
    places = WaitingPlaces(threads)
    for _ in range(2):
        with ExitStack() as taken:
            for _ in range(most):
                taken.enter_context(places.taken())
            with pytest.raises(TooManyWaits, match=f"{most} requests wait"), places.taken():
                pass


def test_a_job_is_told_over_the_queue_to_its_own_tenant(searcher):
    job_id = searcher.submit(**ADDRESS, documents=[{"source": "a", "text": "some text"}])["job_id"]
    told = searcher.job(tenant="acme", job_id=job_id)

    assert (told["job_id"], told["state"], told["documents"]) == (job_id, "running", {"queued": 1})
    assert (told["collection"], told["unchanged"], told["token"]) == ("docs", 0, None)
    assert searcher.job(tenant="other", job_id=job_id)["error"]["code"] == "not_found"
    assert searcher.job(tenant="acme", job_id=7)["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    "documents",
    [
        [],
        [{"source": "a"}],
        [{"source": "a", "text": "x" * 101}],
        [{"source": str(number), "text": "x"} for number in range(4)],
    ],
)
def test_a_submission_beyond_the_limits_is_refused_whole(searcher, documents):
    answer = searcher.submit(**ADDRESS, documents=documents)

    assert answer["error"]["code"] == "invalid_request"


def test_a_defect_is_answered_too_and_its_message_is_kept_back(searcher, monkeypatch, caplog):
    def broken(*_args, **_values):
        raise ZeroDivisionError("what are the tenant's words")

    monkeypatch.setattr(search, "retrieve", broken)
    answer = searcher.search(**ADDRESS, query="the tenant's words")

    assert answer["error"]["code"] == "internal"
    assert "words" not in answer["error"]["message"]
    assert "words" not in caplog.records[-1].getMessage()


def test_a_version_that_the_role_refuses_is_answered_so_and_counted_for_the_metrics(searcher, monkeypatch):
    added = list[Figure]()
    monkeypatch.setattr(Figures, "add", lambda _self, figures: added.extend(figures))
    with searcher._components.catalog.write() as connection:
        connection.execute(sa.update(generations).values(version=1, manifest="tenants/acme/nowhere"))
    for _ in range(2):
        assert searcher.search(**ADDRESS, query="anything")["error"]["code"] == "damaged"
    assert added == [Figure("penstock_refused_versions")], "once: it is not opened again for each search"


def test_the_role_compiles_what_a_search_runs_and_measures_its_cost_before_it_answers(searcher):
    assert searcher._snapshots._opener.costs != TYPICAL
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)
