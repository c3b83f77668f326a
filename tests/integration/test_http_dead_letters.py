"""Dead documents over HTTP: how they are listed, retried and given up, and what searches find afterwards."""

import time

import pytest
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.cli.exits import ExitCode
from penstock.client import Invalid, NewDocument, Penstock
from penstock.storage import ledger

from ..http_service import KEY, Service, running_service
from ..ledger_line import form


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("dead")) as running:
        yield running


@pytest.fixture
def penstock(service):
    with service.penstock() as client:
        yield client


def kill(service: Service, *, code: str = "truncated") -> None:
    """Let all that is queued fail at its first attempt."""
    catalog, now = service.components.catalog, service.components.clock()
    form(catalog, ledger.Forming(100), now=now)
    for batch in ledger.take_ready(catalog, stage="chunk", now=now, limit=100, resend_after_s=60.0):
        claim = ledger.claim(catalog, batch.id, owner="tests", lease_s=60.0, now=now, max_attempts=5)
        assert claim is not None
        failed = [ledger.FailedDocument(one.id, code, "it ends early") for one in claim.versions]
        ledger.finish_chunking(catalog, service.components.objects, claim, parts=[], failed=failed, now=now)


def filled(service: Service, penstock: Penstock, name: str) -> str:
    """Make a collection with the dead documents d0 to d4, of which the even ones are in English; returns their job."""
    penstock.create_collection(name)
    several = [
        NewDocument(source=f"d{n}", text=f"pear d{n}", metadata={"lang": "fr" if n % 2 else "en"}) for n in range(5)
    ]
    job = penstock.submit(name, several).job
    kill(service)
    return job.id


def sources(found) -> list[str]:
    return sorted(one.source for one in found)


def test_what_died_is_listed_with_its_attempts_and_times_by_all_that_it_has_in_common(service, penstock):
    job = filled(service, penstock, "listed")
    page = penstock.dead_documents("listed", limit=2)
    assert (len(page.data), page.has_more) == (2, True)
    assert sources(penstock.all_dead_documents("listed")) == ["d0", "d1", "d2", "d3", "d4"]
    assert sources(penstock.all_documents("listed", state="failed")) == ["d0", "d1", "d2", "d3", "d4"]
    assert sources(penstock.all_dead_documents("listed", filter="lang=en")) == ["d0", "d2", "d4"]
    assert len(penstock.dead_documents("listed", job_id=job, error_code="truncated", stage="chunk").data) == 5
    assert penstock.dead_documents("listed", error_code="empty").data == []
    shown = penstock.document("listed", page.data[0].id)
    assert (shown.attempts, shown.stage, shown.error_code, shown.former_death) == (1, "chunk", "truncated", None)
    assert shown.created_at <= shown.first_attempt_at == shown.last_attempt_at <= shown.finished_at <= time.time()


def test_a_retry_is_tried_dry_then_indexes_without_the_bytes_being_sent_again(service, penstock):
    died_in = filled(service, penstock, "retried")
    dry = penstock.retry_documents("retried", filter="lang=en", dry_run=True)
    assert (dry.job, dry.retried, sources(dry.sample)) == (None, 3, ["d0", "d2", "d4"])
    retried = penstock.retry_documents("retried", filter="lang=en")
    assert (retried.retried, retried.refused, retried.job.documents) == (3, {}, {"queued": 3})
    again = penstock.retry_documents("retried", sources=["d0", "d9"], ids=["doc_0"])
    assert (again.job, again.retried, again.refused) == (None, 0, {"not_dead": 1, "not_found": 2})
    assert {one.id: one.reason for one in again.refusals if one.code == "not_found"} == {
        "doc_0": "the collection has no such document",
        "d9": "the collection has no document of this source",
    }
    (waiting,) = penstock.documents("retried", source="d0").data
    assert (waiting.state, waiting.error, waiting.former_death.error_code) == ("queued", None, "truncated")
    service.index()
    assert penstock.job(died_in).documents == {"failed": 5}
    job = penstock.wait(retried.job.id, timeout_s=5)
    assert job.documents == {"indexed": 3}
    hits = penstock.search("retried", "pear", k=10, min_token=job.token).hits
    assert sorted(hit.document.source for hit in hits) == ["d0", "d2", "d4"]
    assert all(one.version == 1 for one in penstock.all_documents("retried"))


def test_a_dropped_document_is_gone_and_what_is_served_stays(service, penstock):
    penstock.create_collection("dropped")
    penstock.submit("dropped", [NewDocument(source="a", text="pear old")])
    service.index()
    penstock.submit("dropped", [NewDocument(source="a", text="pear new"), NewDocument(source="b", text="pear b")])
    kill(service)
    assert penstock.drop_documents("dropped", all=True, dry_run=True).dropped == 2
    dropped = penstock.drop_documents("dropped", all=True)
    assert (dropped.dropped, sources(dropped.sample), dropped.refused) == (2, ["a", "b"], {})
    (left,) = penstock.documents("dropped").data
    assert (left.source, left.state, left.version) == ("a", "indexed", 1)
    assert sources(penstock.all_documents("dropped", state="dropped")) == ["b"]
    assert [hit.text for hit in penstock.search("dropped", "pear").hits] == ["pear old"]
    assert penstock.drop_documents("dropped", all=True).dropped == 0
    assert penstock.collection("dropped").documents == {"indexed": 1}


def test_whoever_confirms_a_drop_drops_what_was_shown_and_nothing_that_died_or_was_retried_since(
    service, penstock, monkeypatch
):
    filled(service, penstock, "confirmed")

    def meanwhile(*_words: object, **_options: object) -> bool:
        penstock.submit("confirmed", [NewDocument(source="late", text="pear late")])
        kill(service)
        penstock.retry_documents("confirmed", sources=["d0"])
        return True

    monkeypatch.setattr("typer.confirm", meanwhile)
    words = ["dlq", "drop", "--error", "truncated", "-c", "confirmed", "--url", service.url, "--key", KEY]
    result = CliRunner().invoke(app, words)
    assert "4 dead documents of 'confirmed' dropped" in result.output
    assert "its newest version, 1, is queued" in result.output
    assert result.exit_code == ExitCode.DOCUMENTS_FAILED
    assert sources(penstock.all_dead_documents("confirmed")) == ["late"]
    assert penstock.drop_documents("confirmed", all=True, dry_run=True, with_ids=True).ids == [
        one.id for one in penstock.all_dead_documents("confirmed")
    ]


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ({}, "say which documents"),
        ({"dry_run": True}, "say which documents"),
        ({"ids": ["a"], "stage": "chunk"}, "say which documents"),
        ({"all": True, "error_code": "x"}, "say which documents"),
        ({"ids": []}, "at least 1 item"),
        ({"filter": "lang"}, "cannot read the filter"),
    ],
)
def test_a_selection_that_says_nothing_or_too_much_is_refused(service, penstock, selection, said):
    if "refused" not in {one.name for one in penstock.collections()}:
        filled(service, penstock, "refused")
    for act in (penstock.retry_documents, penstock.drop_documents):
        with pytest.raises(Invalid, match=said):
            act("refused", **selection)
    assert len(penstock.dead_documents("refused").data) == 5


@pytest.mark.parametrize(
    ("query", "param"), [("stage=chunk&state=indexed", "stage"), ("filter=lang=en&source=a", "source")]
)
def test_conditions_on_the_dead_are_refused_where_they_mean_nothing(service, penstock, query, param):
    if "asked" not in {one.name for one in penstock.collections()}:
        penstock.create_collection("asked")
    answer = service.http.get(f"/v1/tenants/default/collections/asked/documents?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
