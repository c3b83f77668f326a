"""Dimensions over HTTP: Matryoshka collections, vectors that are cut, and those of the model before."""

import json

import numpy as np
import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.client import NewDocument
from penstock.storage.catalog.tables import generations, reembeddings
from penstock.workers.liveness import Liveness
from penstock.workers.search import Searcher

from ..embedding_endpoint import Endpoint
from ..http_service import KEY, Service, running_service

SMALL = "openai/text-embedding-3-small"
TEXTS = {"a": "apples", "b": "beeches", "c": "cedars"}


@pytest.fixture(scope="module")
def endpoint():
    server = Endpoint()
    server.dimensions, server.shortens = 1_536, True
    yield server
    server.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory, endpoint):
    embedding = {"model": SMALL, "openai_base_url": endpoint.url}
    with running_service(tmp_path_factory.mktemp("dimensions"), embedding=embedding) as running:
        yield running


def filled(service: Service, name: str, **options):
    with service.penstock() as penstock:
        made = penstock.create_collection(name, **options)
        penstock.submit(name, [NewDocument(source=source, text=text) for source, text in TEXTS.items()])
        service.index()
        return made


def test_a_matryoshka_collection_has_fewer_dimensions_for_documents_and_queries(service, endpoint):
    made = filled(service, "short", dimensions=512, quantization="int8")
    assert (made.dimensions, made.quantization) == (512, "int8")
    assert [request["dimensions"] for request in endpoint.requests if "apples" in request["input"]] == [512]
    with service.penstock() as penstock:
        found = penstock.search("short", "beeches", explain=True)
        assert endpoint.requests[-1]["dimensions"] == 512
        assert found.hits[0].text == "beeches"
        assert (found.explain["dimensions"], found.explain["cut_from"], found.explain["routed_to"]) == (512, None, None)
        with pytest.raises(client.Conflict, match="1536 dimensions"):
            penstock.create_collection("short")


def test_embedded_again_with_the_model_it_has_a_collection_keeps_its_dimensions(service):
    with service.penstock() as penstock:
        penstock.create_collection("kept", dimensions=512)
        with pytest.raises(client.Conflict, match="512 dimensions"):
            penstock.reembed("kept", model=SMALL)
        assert penstock.reembed("kept", model=SMALL, dimensions=256).other.dimensions == 256


def test_a_whole_vector_is_cut_and_explain_tells_it(service, endpoint):
    filled(service, "cut", dimensions=256)
    vector = 3 * endpoint.vector_of("cedars")
    with service.penstock() as penstock:
        found = penstock.search("cut", vector=vector, explain=True)
        assert found.hits[0].text == "cedars"
        assert found.hits[0].score == pytest.approx(1.0, abs=1e-5)
        assert (found.explain["dimensions"], found.explain["cut_from"]) == (256, 1_536)
        with pytest.raises(client.Invalid, match=r"300 dimensions, the collection has 256 .*or 1536 to be cut"):
            penstock.search("cut", vector=vector[:300])


def test_cutting_is_told_on_the_command_line_which_makes_such_collections_too(service, endpoint, tmp_path, monkeypatch):
    for variable, value in (("PENSTOCK_URL", service.url), ("PENSTOCK_API_KEY", KEY)):
        monkeypatch.setenv(variable, value)
    made = CliRunner().invoke(app, ["collections", "create", "typed", "--dimensions", "1024", "--json"])
    assert json.loads(made.output)["dimensions"] == 1_024
    (tmp_path / "query.json").write_text(json.dumps(endpoint.vector_of("x").tolist()))
    told = (
        CliRunner()
        .invoke(app, ["search", "--vector", f"@{tmp_path / 'query.json'}", "-c", "typed", "--explain"])
        .output
    )
    assert "cut from 1536 to 1024 dimensions" in told


@pytest.mark.parametrize(
    ("asked", "code", "param", "says"),
    [
        ({"model": "hash", "dimensions": 256}, "invalid_dimensions", "dimensions", "cannot be cut to 256"),
        ({"dimensions": 128}, "invalid_dimensions", "dimensions", "256 to 4096"),
        ({"dimensions": 1_537}, "invalid_dimensions", "dimensions", "256 to 1536 dimensions, not of 1537"),
        ({"model": "openai/text-embedding-ada-002", "dimensions": 512}, "invalid_dimensions", "dimensions", "be cut"),
        ({"model": "nothing", "dimensions": 512}, "unknown_model", "model", "no embedding model"),
    ],
)
def test_dimensions_that_a_model_cannot_have_are_refused(service, asked, code, param, says):
    with service.penstock() as penstock, pytest.raises(client.Invalid, match=says) as refused:
        penstock.create_collection("never", **asked)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_vectors_of_the_model_before_are_answered_until_its_generation_goes(service, endpoint):
    filled(service, "moved", dimensions=512)
    catalog, name = service.components.catalog, "moved"
    with service.penstock() as penstock:
        before = penstock.collection(name)
        mine = generations.c.collection_id == before.id
        with catalog.write() as connection:
            old = connection.execute(sa.select(generations).where(mine)).mappings().one()
            connection.execute(sa.update(generations).where(mine).values(state="retired"))
            new = {**old, "id": "gen_after", "model": "hash", "dimensions": 384, "state": "active"}
            new |= {"manifest": None, "version": 0, "live_chunks": 0}
            connection.execute(sa.insert(generations).values(new))
            follower = {"id": "reemb_1", "state": "switched", "source_id": "gen_after", "target_id": old["id"]}
            follower |= {"tenant_id": "default", "collection_id": before.id, "keep_s": 1e6, "created_at": 1.0}
            connection.execute(sa.insert(reembeddings).values(follower))
        service.components.lookups.forget("default", name)
        vector = endpoint.vector_of("apples")[:512]
        assert penstock.search(name, "apples").hits == []
        found = penstock.search(name, vector=vector, explain=True)
        assert (found.hits[0].text, found.explain["routed_to"]) == ("apples", old["id"])
        assert penstock.search(name, vector=np.ones(384)).hits == []
        with pytest.raises(client.Invalid, match=r"384 \(model 'hash'\) or 512 .*which served before"):
            penstock.search(name, vector=vector[:300])
        with pytest.raises(client.Invalid, match="512 dimensions, the collection has 384"):
            penstock.search(name, vector=vector, version=0)
        searcher = Searcher(service.settings, liveness=Liveness())
        searcher.open()
        try:
            answer = searcher.search(tenant="default", collection=name, vector=vector.tolist(), explain=True)
            assert (answer["hits"][0]["text"], answer["explain"]["routed_to"]) == ("apples", old["id"])
            with catalog.write() as connection:  # from here on it would find what was deleted
                connection.execute(sa.update(reembeddings).values(paused_at=1.0))
            answer = searcher.search(tenant="default", collection=name, vector=vector.tolist())
            assert answer["error"]["code"] == "invalid_query"
        finally:
            searcher.close()
