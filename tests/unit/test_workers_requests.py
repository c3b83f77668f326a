"""Messages of the queue interface are checked before anything is done, and refused without quoting them."""

import base64
from pathlib import Path

import pytest

from penstock.pipeline.errors import InputRejected, InvalidFilter, InvalidQuery, ProviderMisconfigured
from penstock.storage.errors import BacklogFull, NotFound, NotYet
from penstock.workers.errors import InvalidRequest
from penstock.workers.requests import CODES, refusal, search_request, submit_request

ADDRESS = {"tenant": "acme", "collection": "docs"}


def submit(**document):
    return submit_request({**ADDRESS, "documents": [{"source": "a/b.txt", **document}]}).documents[0].submitted()


def test_text_and_base64_become_the_same_bytes():
    encoded = base64.b64encode("grün".encode()).decode()

    assert submit(text="grün").data == submit(content_base64=encoded).data == "grün".encode()


def test_plain_text_is_declared_as_such_whatever_its_source_is_called():
    document = submit_request({**ADDRESS, "documents": [{"source": "paper.pdf", "text": "x"}]}).documents[0].submitted()

    assert (document.filename, document.media_type) == ("paper.pdf", "text/plain")
    assert submit(content_base64="eA==").media_type is None


@pytest.mark.parametrize("content", [{}, {"text": "x", "content_base64": "eA=="}, {"content_base64": "not base64!"}])
def test_a_document_needs_one_content_that_can_be_read(content):
    with pytest.raises(InvalidRequest, match=r"a/b\.txt"):
        submit(**content)


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({**ADDRESS, "query": "x", "limit": 5}, "limit"),
        ({"collection": "docs", "query": "x"}, "tenant"),
        ({**ADDRESS, "query": "x", "k": "secret"}, "k"),
        ({**ADDRESS, "vector": [float("nan")]}, "vector"),
        ({**ADDRESS, "query": "x", "k": "3"}, "k"),
        ({**ADDRESS, "query": "x", "k": True}, "k"),
        ({**ADDRESS, "vector": [True]}, "vector"),
        ({**ADDRESS, "query": "x", "timeout_s": "1"}, "timeout_s"),
    ],
)
def test_a_search_that_is_not_well_formed_is_refused_by_the_name_of_its_field(values, field):
    with pytest.raises(InvalidRequest, match=field) as refused:
        search_request(values)
    assert "secret" not in str(refused.value)


def test_errors_have_the_codes_of_the_http_interface_and_defects_have_none():
    for error, code in [
        (NotFound("no"), "not_found"),
        (NotYet("no"), "not_yet"),
        (InvalidFilter("no"), "invalid_filter"),
        (InvalidQuery("no", param="k"), "invalid_query"),
        (InvalidRequest("no"), "invalid_request"),
        (InputRejected("no"), "query_rejected"),
        (ProviderMisconfigured("no", setting="embedding.model"), "embedding_misconfigured"),
    ]:
        assert refusal(error) == {"error": {"code": code, "message": "no"}}
    assert refusal(ZeroDivisionError("no")) is None


def test_the_manual_explains_every_code():
    manual = (Path(__file__).parents[2] / "docs" / "queue.md").read_text()

    assert [code for code in ("internal", *dict(CODES).values()) if f"`{code}`" not in manual] == []


def test_who_finds_no_room_is_told_when_to_come_again():
    told = refusal(BacklogFull("10 wait, and 10 may", retry_after_s=7.5))
    assert told == {"error": {"code": "backlog_full", "message": "10 wait, and 10 may", "retry_after_s": 7.5}}


def test_a_budget_is_an_amount_of_money():
    documents = [{"source": "a", "text": "x"}]
    assert submit_request({**ADDRESS, "documents": documents, "budget_usd": 0.5}).budget_usd == 0.5
    with pytest.raises(InvalidRequest, match="budget_usd"):
        submit_request({**ADDRESS, "documents": documents, "budget_usd": -1.0})


def test_a_priority_is_one_of_three_words():
    documents = [{"source": "a", "text": "x"}]
    assert submit_request({**ADDRESS, "documents": documents}).priority == "normal"
    with pytest.raises(InvalidRequest, match="priority"):
        submit_request({**ADDRESS, "documents": documents, "priority": 9})
