"""A collection is embedded again over HTTP, with the client and on the command line, while it answers searches."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.api.cli.exits import report
from penstock.client import NewDocument, Penstock, SearchResult
from penstock.client.wire import Chunking

from ..http_service import KEY, Service, running_service
from ..reembedded_line import ReembeddedLine, reembedded_line

TEXTS = {f"d{number}": f"Document {number} tells how water number {number} runs downhill." for number in range(6)}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[ReembeddedLine, Service, Penstock]]:
    """The roles, a server over the same installation, and a client; the collection ``docs`` holds six documents."""
    folder = tmp_path / "data"
    with (
        reembedded_line(folder) as line,
        running_service(folder, made=True) as service,
        service.penstock("acme") as us,
    ):
        us.submit("docs", [NewDocument(source=source, text=text) for source, text in TEXTS.items()])
        line.drain()
        yield line, service, us


def answered_by(model: str, penstock: Penstock, *, token: str) -> SearchResult:
    """Search until that model answers: which generation serves may be told as it was a moment ago."""
    deadline = time.monotonic() + 10
    while (found := penstock.search("docs", "water", k=6, min_token=token, explain=True)).explain["model"] != model:
        assert time.monotonic() < deadline, found.explain
    return found


def test_it_goes_from_the_first_request_to_the_switch_and_back_and_searches_never_fail(served):
    line, _service, penstock = served
    before = penstock.search("docs", "water", k=6)
    begun = penstock.reembed("docs", model="hash-384", force=True, budget_usd=1.0)
    assert (begun.state, begun.serving.model, begun.other.model) == ("copying", "hash-256", "hash-384")
    assert penstock.set_reembedding_budget("docs", 2.5).budget_usd == 2.5
    assert penstock.reembed("docs", model="hash-384").id == begun.id
    assert penstock.pause_reembedding("docs").paused_at is not None
    [told] = penstock.status().reembeddings
    assert (told.id, told.tenant, told.collection, told.paused_at is None) == (begun.id, "acme", "docs", False)
    assert penstock.wait_for_reembedding("docs", timeout_s=5).state == "copying"  # it stands still
    assert penstock.resume_reembedding("docs").paused_at is None
    while penstock.reembedding("docs").state != "switched":
        assert len(penstock.search("docs", "water", k=6).hits) == len(before.hits)
        line.step()
    switched = penstock.reembedding("docs")
    assert penstock.status().reembeddings == [], "it rests"
    assert (switched.serving.model, switched.report["old"]["model"]) == ("hash-384", "hash-256")
    assert switched.kept_until > switched.switched_at
    after = answered_by("hash-384", penstock, token=before.token)
    assert {hit.document.source for hit in after.hits} == {hit.document.source for hit in before.hits}
    assert penstock.collection("docs").model == "hash-384"
    penstock.return_to_former("docs")
    line.until("returned")
    answered_by("hash-256", penstock, token=after.token)
    assert penstock.let_former_go("docs").state == "done"
    with pytest.raises(client.NotFound, match="not being embedded again"):
        penstock.pause_reembedding("docs")


def test_what_cannot_be_is_refused_and_says_what_to_do(served):
    _line, service, penstock = served
    with pytest.raises(client.NotFound, match="never embedded again: POST to this path begins"):
        penstock.reembedding("docs")
    with pytest.raises(client.Conflict, match="choose another model"):
        penstock.reembed("docs")
    with pytest.raises(client.Invalid, match="There is no embedding model 'nonsense'"):
        penstock.reembed("docs", model="nonsense")
    with pytest.raises(client.Invalid, match="exceeds what the embedding model minilm reads"):
        penstock.reembed("docs", model="minilm", chunking=Chunking(size_tokens=9_000))
    with pytest.raises(client.Invalid, match="dimensions") as refused:
        penstock.reembed("docs", model="hash-384", dimensions=3)
    assert refused.value.param == "dimensions"
    penstock.reembed("docs", model="hash-384")
    with pytest.raises(client.Conflict, match="wait for that, or cancel it"):
        penstock.reembed("docs", model="hash-512")
    with pytest.raises(client.Conflict, match="no switch to go back from"):
        penstock.return_to_former("docs")
    with pytest.raises(client.Conflict, match="cancel it instead"):
        penstock.let_former_go("docs")
    service.http.post("/v1/tenants", json={"name": "other"})
    with service.penstock("other") as other, pytest.raises(client.NotFound, match="no collection 'docs'"):
        other.cancel_reembedding("docs")
    assert penstock.cancel_reembedding("docs").state == "cancelled"


def test_the_command_line_begins_shows_and_cancels(served, monkeypatch, tmp_path, capsys):
    _line, service, _penstock = served
    monkeypatch.chdir(tmp_path)
    for variable, value in (("URL", service.url), ("API_KEY", KEY), ("TENANT", "acme")):
        monkeypatch.setenv(f"PENSTOCK_{variable}", value)

    def run(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["reembed", "docs", *words], standalone_mode=False)
        if result.exception is not None:
            assert report(result.exception, as_json="--json" in words) == code
            return "".join(capsys.readouterr())
        return result.output

    assert json.loads(run("--model", "hash-384", "--keep", "60", "--json"))["state"] == "copying"
    assert "the generation of hash-384 (384 dimensions, 0 chunks) is being copied" in run("--status")
    assert "$2.50 that it may cost" in run("--set-budget", "2.50")
    assert "that it may cost" not in run("--set-budget", "none")
    assert "--set-budget much: write US dollars" in run("--set-budget", "much", code=2)
    assert "give no model" in run("--pause", "--budget", "1", code=2)
    assert "paused" in run("--pause")
    assert "contradict each other" in run("--pause", "--resume", code=2)
    assert "give no model" in run("--cancel", "--model", "hash-512", code=2)
    assert "was dropped" in run("--cancel")
