"""Recorded searches, judgements and the shadow check over HTTP, with the client and on the command line."""

import json
import threading
from contextlib import closing

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock import client
from penstock.api.cli.application import app
from penstock.api.cli.exits import report
from penstock.api.errors import Refused
from penstock.api.http.routes.shadow import check_shadow
from penstock.client import NewDocument
from penstock.client.wire import ShadowQuery
from penstock.storage.catalog.tables import generations
from penstock.storage.publishing.publisher import Publisher
from penstock.storage.segments.segment import open_segment
from penstock.workers.liveness import Liveness
from penstock.workers.search import Searcher

from ..http_service import KEY, Service, running_service

WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("questions")) as running:
        yield running


@pytest.fixture
def library(service: Service, request):
    """A client and a collection of a dozen documents."""
    name = f"c{abs(hash(request.node.name)) % 10**12}"
    with service.penstock() as penstock:
        penstock.create_collection(name)
        texts = {word: f"The {word} is where it was, and number {at} says so." for at, word in enumerate(WORDS)}
        penstock.submit(name, [NewDocument(source=word, text=text) for word, text in texts.items()])
        service.index()
        yield penstock, name
        penstock.change_tenant("default", record_queries=None)


@pytest.fixture
def run(service: Service, monkeypatch, tmp_path, capsys):
    """Run a command of the command line in this process; returns what it printed."""
    monkeypatch.chdir(tmp_path)
    for variable, value in (("PENSTOCK_URL", service.url), ("PENSTOCK_API_KEY", KEY)):
        monkeypatch.setenv(variable, value)

    def ran(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, list(words), standalone_mode=False)
        if result.exception is not None:
            capsys.readouterr()
            assert report(result.exception, as_json="--json" in words) == code
            return "".join(capsys.readouterr())
        assert (result.return_value or 0) == code, result.output
        return result.output

    return ran


def second_generation(service: Service, name: str) -> None:
    """Build another generation of the collection, of another model."""
    components = service.components
    with components.catalog.write() as connection:
        mine = generations.c.collection_id.in_(
            sa.text("SELECT id FROM collections WHERE name = :name").bindparams(name=name)
        )
        old = connection.execute(sa.select(generations).where(mine)).mappings().one()
        new = {**old, "id": f"gen_second_{name}", "state": "building", "model": "hash-512", "dimensions": 512}
        new |= {"manifest": None, "version": 0, "next_chunk_id": 1, "live_chunks": 0, "created_at": 1e10}
        connection.execute(sa.insert(generations).values(new))
    with components.snapshots.get(old["tenant_id"], old["id"]) as snapshot:
        (entry,) = snapshot.manifest.segments
    rows = open_segment(components.objects, entry, dimensions=old["dimensions"]).rows
    vectors = components.embedders.of("hash-512", 512).embed_passages(rows.texts())
    Publisher(components.catalog, components.objects).publish(
        new["id"], epoch=service.epoch, shard=0, additions=rows, vectors=vectors
    )


def asked(penstock, name: str) -> dict[str, int]:
    return {one.text: one.times for one in penstock.recorded_queries(name).data}


def test_searches_are_recorded_off_the_hot_path_with_their_filters(service, library):
    penstock, name = library
    penstock.search(name, "pears", filter="lang!=en")
    penstock.search(name, "pears", filter="lang!=en")
    penstock.search(name, "plums")
    penstock.search(name, vector=[1.0] * 384)
    penstock.search(name, "of a past version", version=0)
    with pytest.raises(client.Invalid):
        penstock.search(name, "refused", filter={"type": "nothing"})
    assert asked(penstock, name) == {}
    service.components.recorder.flush()
    found = penstock.recorded_queries(name)
    assert {(one.text, one.filter, one.times) for one in found.data} == {("pears", "lang!=en", 2), ("plums", None, 1)}
    assert (found.by_vector, found.recording) == (1, True)
    assert penstock.forget_queries(name).forgotten == 2
    assert penstock.recorded_queries(name).by_vector == 0


def test_searches_over_the_queue_are_recorded_too(service, library):
    penstock, name = library
    searcher = Searcher(service.settings, liveness=Liveness())
    searcher.open()
    with closing(searcher):
        assert searcher.search(tenant="default", collection=name, query="by the queue")["hits"]
    assert asked(penstock, name) == {"by the queue": 1}


def test_a_tenant_says_no_and_nothing_is_left_of_it(service, library, run):
    penstock, name = library
    penstock.search(name, "before")
    service.components.recorder.flush()
    assert "never recorded" in run("tenants", "set", "default", "--no-record-queries")
    penstock.search(name, "after")
    service.components.recorder.flush()
    assert asked(penstock, name) == {}
    assert not penstock.recorded_queries(name).recording
    assert "none are recorded any more" in run("queries", "list", "-c", name)
    assert penstock.get_tenant("default").record_queries is False


def test_what_was_recorded_is_listed_and_forgotten_on_the_command_line(service, library, run):
    penstock, name = library
    penstock.search(name, "what [bold] is", filter={"type": "exists", "key": "lang"})
    penstock.search(name, vector=[1.0] * 384)
    service.components.recorder.flush()
    listed = run("queries", "list", "-c", name)
    assert "what [bold] is" in listed
    assert '"exists"' in listed
    assert "1 more by vector" in listed
    assert run("queries", "clear", name, "--json", code=2)
    assert "1 recorded searches are forgotten" in run("queries", "clear", name, "--yes")


def test_judgements_are_loaded_listed_and_cleared(library, run, tmp_path):
    penstock, name = library
    document = penstock.documents(name).data[0]
    (tmp_path / "judged.jsonl").write_text(
        '{"query": "the river", "source": "river", "grade": 3}\n\n'
        f'{{"query": "the gate", "document_id": "{document.id}", "grade": 0}}\n'
        '{"query": "the gate", "source": "no such document", "grade": 1}\n'
    )
    told = run("judgements", "load", "judged.jsonl", "-c", name)
    assert "3 judgements loaded" in told
    assert "3 judgements of 2 questions" in told
    assert "(lines 4)" in told
    assert json.loads(run("judgements", "load", "judged.jsonl", "-c", name, "--json"))["unknown"] == [4]
    assert "the river" in run("judgements", "list", "-c", name)
    assert {(one.query, one.grade) for one in penstock.all_judgements(name)} == {
        ("the river", 3),
        ("the gate", 0),
        ("the gate", 1),
    }
    penstock.load_judgements(name, [{"query": "q", "source": "dam", "grade": 2}], replace=True)
    assert [one.query for one in penstock.judgements(name).data] == ["q"]
    assert "1 judgement forgotten" in run("judgements", "clear", name, "--yes")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: this is not JSON"),
        ("[]", "line 2: "),
        ('{"query": "q", "source": "a"}', "line 2: field 'grade' is missing"),
        (
            '{"query": "q", "source": "a", "grade": 11}',
            "line 2: field 'grade': input should be less than or equal to",
        ),
        ('{"query": "q", "source": "a", "grade": 1.5}', "line 2: field 'grade'"),
        ('{"query": " ", "source": "a", "grade": 1}', "line 2: field 'query'"),
        ('{"query": "q", "grade": 1}', "line 2: value error, give exactly one of 'source' and 'document_id'"),
        ('{"query": "q", "sorce": "a", "grade": 1}', "line 2: unknown field 'sorce': did you mean 'source'?"),
    ],
)
def test_a_wrong_line_is_named_before_anything_is_sent(library, run, tmp_path, line, says):
    penstock, name = library
    (tmp_path / "j.jsonl").write_text(f'{{"query": "q", "source": "a", "grade": 1}}\n{line}\n')
    assert says in run("judgements", "load", "j.jsonl", "-c", name, code=2)
    assert penstock.judgements(name).data == []


def test_the_shadow_check_compares_the_generation_that_is_searched_with_the_other(service, library, run):
    penstock, name = library
    with pytest.raises(client.NotFound, match="one generation only"):
        penstock.shadow_check(name)
    second_generation(service, name)
    penstock.load_judgements(name, [{"query": "the river", "source": "river", "grade": 3}])
    for word in WORDS:
        penstock.search(name, f"the {word}")
    service.components.recorder.flush()
    found = penstock.shadow_check(name, min_queries=10)
    assert (found.passed, found.recorded, found.sampled, found.judged) == (True, 12, 0, 1)
    assert (found.old.model, found.new.model, found.new.dimensions) == ("hash", "hash-512", 512)
    assert found.new.ndcg == found.old.ndcg == 1.0
    told = run("shadow", name, "--min-overlap", "1", "--max-ndcg-drop", "off", code=3)
    assert "refused" in told
    assert "12 recorded searches" in told
    assert json.loads(run("shadow", name, "--json", "--min-overlap", "off"))["thresholds"]["min_overlap"] is None
    assert "write a number" in run("shadow", name, "--min-overlap", "half", code=2)


def test_what_is_null_is_a_threshold_that_is_not_looked_at_and_otherwise_the_servers(service, library):
    penstock, name = library
    second_generation(service, name)
    nothing = dict.fromkeys(("queries", "min_queries", "timeout_s", "min_overlap", "max_ndcg_drop", "old", "new"))
    found = penstock.shadow_check(name, **nothing)
    assert (found.thresholds.min_overlap, found.thresholds.max_ndcg_drop, found.thresholds.min_queries) == (
        None,
        None,
        20,
    )


def test_a_check_ends_between_two_questions_when_nobody_waits_for_it(service, library):
    _, name = library
    second_generation(service, name)
    left = threading.Event()
    left.set()
    with pytest.raises(Refused, match="nobody waits"):
        check_shadow(service.components, "default", name, ShadowQuery(), left=left)


def test_generations_of_others_are_not_compared(service, library):
    penstock, name = library
    with service.penstock("other") as other:
        other.create_collection("theirs")
    with service.components.catalog.read() as connection:
        theirs = connection.scalar(sa.select(generations.c.id).where(generations.c.tenant_id == "other"))
    with pytest.raises(client.NotFound) as refused:
        penstock.shadow_check(name, new=theirs)
    with pytest.raises(client.NotFound) as unknown:
        penstock.shadow_check(name, new="gen_nothing")
    assert str(refused.value).replace(theirs, "gen_nothing") == str(unknown.value)
