"""`penstock dlq` as its users see it: what it asks the server, what it prints, and how it ends."""

import json
from typing import Any

import pytest

from penstock.api.cli.exits import UsageError
from penstock.client.wire import DocumentList, Dropped, FormerDeath, Retried

from .test_cli import JOB, Server, document, penstock, server

__all__ = ["penstock", "server"]  # the fixtures

DEATH = {
    "state": "failed",
    "stage": "embed",
    "error_code": "worker_lost",
    "error": "the worker died [often]",
    "attempts": 10,
    "first_attempt_at": 1.0,
    "last_attempt_at": 90.0,
    "finished_at": 99.0,
}
DEAD = document("papers/bomb.pdf", chunks=None, **DEATH)
REFUSED = {"id": "doc_9", "source": "gone.pdf", "code": "bytes_gone", "reason": "submit it again"}


@pytest.fixture
def asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What the server was asked about dead documents; it answers the same each time."""
    heard: list[tuple[str, dict[str, Any]]] = []
    answers = {
        "dead_documents": DocumentList(data=[DEAD], has_more=True, last_id=DEAD.id),
        "retry_documents": Retried(job=JOB, retried=2, refused={"bytes_gone": 1}, sample=[], refusals=[REFUSED]),
        "drop_documents": Dropped(
            dropped=2,
            refused={},
            sample=[{"id": "doc_1", "source": "papers/bomb.pdf"}],
            refusals=[],
            ids=["doc_1", "doc_2"],
        ),
    }

    def method(name: str) -> Any:
        def answer(collection: str, **options: Any) -> Any:
            heard.append((name, options))
            return answers[name]

        return answer

    for name in answers:
        monkeypatch.setattr(server, name, method(name), raising=False)
    monkeypatch.setattr(server, "document", lambda _collection, _id: DEAD)
    return heard


def test_a_list_tells_where_and_why_each_died_after_how_many_attempts(penstock, asked):
    shown = penstock("dlq", "list", "--stage", "embed", "--filter", "lang=en", "--limit", "5").stdout
    assert asked == [("dead_documents", {"stage": "embed", "filter": "lang=en", "after": None, "limit": 5})]
    for word in ("papers/bomb.pdf", "embed", "10", "worker_lost: the worker died [often]", f"--after {DEAD.id}"):
        assert word in " ".join(shown.split())
    assert json.loads(penstock("dlq", "list", "--json").stdout)["data"][0]["attempts"] == 10


def test_one_is_shown_with_its_times_and_the_death_before(penstock, server, asked, monkeypatch):
    death = FormerDeath(
        stage="chunk",
        error_code="timeout",
        error="slow",
        attempts=1,
        first_attempt_at=1.0,
        last_attempt_at=1.0,
        died_at=2.0,
        retries=3,
    )
    again = DEAD.model_copy(update={"former_death": death})
    monkeypatch.setattr(server, "document", lambda _collection, _id: again)
    shown = " ".join(penstock("dlq", "show", "doc_1").stdout.split())
    for word in ("first attempt", "last attempt", "accepted", "in chunk, timeout: slow", "retries 3"):
        assert word in shown


def test_what_is_not_dead_is_not_shown_as_if_it_were(penstock, server, asked, monkeypatch):
    monkeypatch.setattr(server, "document", lambda _collection, _id: document("a"))
    with pytest.raises(UsageError, match="is not dead, it is indexed"):
        penstock("dlq", "show", "doc_1")


def test_a_retry_asks_once_and_says_what_was_refused(penstock, asked):
    shown = penstock("dlq", "retry", "--error", "worker_lost", "--job", "job_1", code=3).stdout
    assert asked == [("retry_documents", {"error_code": "worker_lost", "job_id": "job_1", "dry_run": False})]
    for word in (
        "2 documents of 'default' retried",
        "gone.pdf",
        "bytes_gone: submit it again",
        "1 document refused",
    ):
        assert word in shown
    assert "penstock jobs show job_1" in shown


@pytest.mark.parametrize(
    ("became", "said"),
    [({"indexed": 2}, "2 indexed\n"), ({"indexed": 1, "failed": 1}, "1 indexed, 1 dead again\n")],
)
def test_who_waits_for_a_retry_is_told_what_became_of_it(penstock, asked, monkeypatch, became, said):
    ended = JOB.model_copy(update={"documents": became})
    monkeypatch.setattr("penstock.api.cli.changes.followed", lambda *_, **__: [ended])
    assert penstock("dlq", "retry", "--all", "--wait", code=3).stdout.count(said) == 1


def test_names_are_sources_and_ids_where_no_source_is_called_so(penstock, asked):
    penstock("dlq", "retry", "a.pdf", f"doc_{26 * '0'}", code=3)
    assert asked[0][1] == {"sources": ["a.pdf"], "ids": [f"doc_{26 * '0'}"], "dry_run": False}


def test_a_drop_asks_first_and_then_does_it(penstock, asked):
    penstock("dlq", "drop", "--all", input="n\n", code=1)
    first = ("drop_documents", {"all": True, "dry_run": True, "with_ids": True})
    assert asked == [first]
    asked.clear()
    shown = penstock("dlq", "drop", "--all", input="y\n").stdout
    assert "papers/bomb.pdf" in shown
    assert "and 1 more" in shown
    assert "2 dead documents of 'default' dropped" in shown
    assert asked == [first, ("drop_documents", {"ids": ["doc_1", "doc_2"]})]
    asked.clear()
    assert json.loads(penstock("dlq", "drop", "--all", "--yes", "--json").stdout)["dropped"] == 2
    assert asked == [("drop_documents", {"all": True, "dry_run": False, "with_ids": False})]
    asked.clear()
    assert "would be dropped" in penstock("dlq", "drop", "--all", "--dry-run").stdout
    assert asked == [("drop_documents", {"all": True, "dry_run": True, "with_ids": False})]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["retry"], "name documents by id or source"),
        (["drop", "--yes"], "or take --all"),
        (["retry", "a", "--all"], "name documents by id or source"),
        (["retry", "a", "--stage", "chunk"], "name documents by id or source"),
        (["list", "--stage", "parse"], "choose one of chunk, embed, index"),
        (["drop", "--all", "--json"], "--json asks nobody"),
    ],
)
def test_wrong_usage_says_what_to_write_and_asks_nothing(penstock, asked, words, said):
    with pytest.raises(UsageError, match=said):
        penstock("dlq", *words)
    assert asked == []
