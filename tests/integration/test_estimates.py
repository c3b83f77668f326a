"""An estimate says what the ingest then takes, and leaves nothing behind."""

import json
import random

import pytest
import redis
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.client import estimates
from penstock.storage.catalog.tables import metadata
from penstock.storage.intake.documents import SubmittedDocument

from ..embedding_endpoint import DIMENSIONS, Endpoint
from ..http_service import KEY, Service, running_service
from ..role_line import RoleLine, role_line

PRICE = 1_000.0  # of a million tokens
WORDS = ["water", "wheel", "sluice", "river", "weir", "turbine", "gate", "head", "flow", "race", "spill", "dam", "pond"]


@pytest.fixture
def line(tmp_path, endpoint: Endpoint, valkey_url):
    with redis.Redis.from_url(valkey_url) as server:
        server.flushall()
    embedding = {
        "model": "openai/priced",
        "openai_base_url": endpoint.url,
        "openai_dimensions": DIMENSIONS,
        "openai_usd_per_million_tokens": PRICE,
        "openai_passage_prefix": "passage: ",
        "openai_batches": True,
    }
    with role_line(tmp_path, seed=1, embedding=embedding, cache_url=valkey_url) as made:
        yield made


@pytest.fixture
def service(tmp_path, line: RoleLine, valkey_url):
    embedding = line.components.settings.embedding.model_dump()
    with running_service(tmp_path, made=True, embedding=embedding, cache_url=valkey_url) as running:
        yield running


def sentences(rng: random.Random, count: int) -> str:
    return "\n\n".join(" ".join(rng.choices(WORDS, k=rng.randrange(8, 14))) + "." for _ in range(count))


def corpus(rng: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    """Return texts by source before and now: new, changed, unchanged, and the same in several places."""
    before = {f"old{number}.txt": sentences(rng, 6) for number in range(12)}
    now = dict(before)
    for number in range(4):
        now[f"old{number}.txt"] += "\n\n" + sentences(rng, 3)
    for number in range(4, 6):
        now[f"old{number}.txt"] = sentences(rng, 5)
    fresh = [sentences(rng, 5) for _ in range(6)]
    for number in range(12):
        now[f"new{number}.txt"] = fresh[number % 6]  # each twice, some requests apart
    now["moved.txt"] = before["old8.txt"]  # in the cache under another document
    return before, now


def submitted(texts: dict[str, str]) -> list[SubmittedDocument]:
    return [SubmittedDocument(source, source, text.encode()) for source, text in texts.items()]


def uploads(texts: dict[str, str]) -> list[client.Upload]:
    return [client.Upload(content=text.encode(), source=source) for source, text in texts.items()]


def everything(service: Service, url: str) -> dict[str, object]:
    """Return all rows of the catalog but the lease that the writer renews, and the keys of the cache."""
    tables = [table for table in metadata.sorted_tables if table.name != "shards"]
    with service.components.catalog.read() as connection:
        rows = {table.name: sorted(map(repr, connection.execute(sa.select(table)))) for table in tables}
    with redis.Redis.from_url(url) as server:
        return rows | {"cache": sorted(server.scan_iter("penstock:embedding:*"))}


def test_an_estimate_is_what_the_ingest_then_takes(line, service, endpoint, valkey_url, monkeypatch, rng):
    monkeypatch.setattr(estimates, "REQUEST_FILES", 4)
    before, now = corpus(rng)
    line.accept(submitted(before))
    line.drain()
    billed, files = endpoint.billed_tokens, uploads(now)
    files.append(client.Upload(content=b"%PDF-1.7 no more", source="cut.pdf"))
    untouched = everything(service, valkey_url)

    with service.penstock("acme") as penstock:
        found = penstock.estimate("docs", files)
    assert everything(service, valkey_url) == untouched
    assert endpoint.billed_tokens == billed
    assert (found.documents, found.unchanged, found.failed) == (len(now) + 1, 6, 1)
    assert [one.source for one in found.unreadable] == ["cut.pdf"]

    accepted = line.accept([*submitted(now), SubmittedDocument("cut.pdf", "cut.pdf", b"%PDF-1.7 no more")])
    line.drain()
    job = line.job(accepted)
    assert found.tokens == pytest.approx(endpoint.billed_tokens - billed, rel=0.05)
    assert found.tokens > 0
    assert found.cost_usd == pytest.approx(job.cost_usd, rel=0.05)
    assert found.chunks_reused == pytest.approx(job.chunks_reused, rel=0.05)
    # The same texts in one batch share a call, in several they are hits.
    assert found.cache_hits <= job.cache_hits <= found.cache_hits + found.repeated
    assert found.repeated > 0
    assert found.chunks_reused > 0
    assert found.cache_hits > 0
    assert found.unchanged == accepted.unchanged
    assert found.duration_s is not None

    with service.penstock("acme") as penstock:
        again = penstock.estimate("docs", uploads(now))
    assert (again.unchanged, again.chunks, again.cost_usd) == (len(now), 0, 0.0)


def test_a_collection_that_is_not_there_yet_is_estimated_and_not_made(line, service, monkeypatch, tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    for name in ("a.txt", "b.txt"):
        (folder / name).write_text("how does water turn a wheel\n")
    for name, value in (("URL", service.url), ("API_KEY", KEY), ("TENANT", "acme")):
        monkeypatch.setenv(f"PENSTOCK_{name}", value)
    words = ["ingest", str(folder), "-c", "other", "--estimate"]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result
    told = json.loads(result.stdout)
    assert (told["documents"], told["chunks"], told["repeated"], told["embedded"]) == (2, 2, 1, 1)
    assert told["model"] == "openai/priced"
    cheap = json.loads(CliRunner().invoke(app, [*words, "--economy", "--json"]).stdout)
    assert (cheap["tokens"], cheap["cost_usd"]) == (told["tokens"], told["cost_usd"] / 2)
    shown = CliRunner().invoke(app, words).stdout
    assert "1 to embed" in shown
    assert "not known yet" in shown
    with service.penstock("acme") as penstock:
        assert [one.name for one in penstock.collections()] == ["docs"]
        assert penstock.estimate("other", uploads({"a": "one"}), model="hash").cost_usd == 0.0
        with pytest.raises(client.Invalid, match="leave economy out"):
            penstock.estimate("other", uploads({"a": "one"}), model="hash", priority="economy")
        with pytest.raises(client.Conflict):
            penstock.estimate("docs", uploads({"a": "one"}), model="hash")
        with pytest.raises(client.NotFound), service.penstock("nobody") as nobody:
            nobody.estimate("docs", uploads({"a": "one"}))


def test_a_document_that_takes_the_process_down_which_reads_it_takes_no_other_along(service):
    cutter = service.components.cutter
    with service.penstock("acme") as penstock:
        assert penstock.estimate("docs", uploads({"a": "one"})).chunks == 1
        cutter._process.kill()
        cutter._process.join()
        found = penstock.estimate("docs", uploads({"a": "one", "b": "two"}))
    assert (found.failed, found.chunks) == (1, 1)
    assert "chunk_memory_bytes" in found.unreadable[0].reason
