"""Parts of the HTTP interface alone: the key gate, the lookups, the words of refusals, tokens."""

import asyncio
import inspect
import json
import threading
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.api.errors import TRANSLATIONS, Refused, refusal
from penstock.api.http.attendance import while_waited_for
from penstock.api.http.bodies import parse_json
from penstock.api.http.embedders import QueryEmbedders
from penstock.api.http.gate import REMEMBERED_S, KeyGate
from penstock.api.http.lookups import Lookups
from penstock.api.http.repeats import repeated_field
from penstock.api.http.searching import threads_for
from penstock.client.wire import NewCollection, SearchQuery, Submission, packed_vector
from penstock.pipeline import errors as pipeline_errors
from penstock.settings.model import Settings
from penstock.storage import errors as storage_errors
from penstock.storage.catalog.collections import create_collection, delete_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import ensure_installation
from penstock.storage.ids import TenantId
from penstock.storage.tokens import read_token, token_of

TENANT = TenantId("default")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}")
    migrate(catalog)
    ensure_installation(catalog, now=1.0, key="the first key of all")
    yield catalog
    catalog.dispose()


def make(catalog: Catalog, name: str) -> str:
    options = {"model": "hash", "dimensions": 384, "metric": "cosine", "chunking": {}, "shards": 1, "now": 1.0}
    return create_collection(catalog, tenant=TENANT, name=name, **options).id


def test_a_replaced_key_is_taken_only_for_a_moment_more(catalog):
    clock = Clock()
    gate = KeyGate(catalog, clock=clock)
    asyncio.run(gate.check("Bearer the first key of all"))
    ensure_installation(catalog, now=2.0, key="the second key of all")
    asyncio.run(gate.check("bearer the second key of all"))
    with pytest.raises(Refused):
        asyncio.run(gate.check("Bearer the first key of all"))


def test_a_remembered_key_is_looked_up_again(catalog):
    clock = Clock()
    gate = KeyGate(catalog, clock=clock)
    asyncio.run(gate.check("Bearer the first key of all"))
    ensure_installation(catalog, now=2.0, key="the second key of all")
    clock.now += REMEMBERED_S
    with pytest.raises(Refused):
        asyncio.run(gate.check("Bearer the first key of all"))


def test_a_key_is_kept_as_a_digest_only(catalog):
    gate = KeyGate(catalog, clock=Clock())
    asyncio.run(gate.check("Bearer the first key of all"))
    assert "the first key" not in str(vars(gate))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer  ", "Basic abc", "the first key of all", "Bearer \udcff"]
)
def test_whatever_is_no_key_is_refused(catalog, header):
    with pytest.raises(Refused) as caught:
        asyncio.run(KeyGate(catalog).check(header))
    assert caught.value.status == 401


def test_lookups_forget_what_was_deleted_and_notice_it_by_themselves_in_time(catalog):
    clock = Clock()
    lookups = Lookups(catalog, remembered_s=1.0, clock=clock)
    first = make(catalog, "books")
    assert lookups.collection("default", "books").id == first
    delete_collection(catalog, tenant=TENANT, name="books")
    second = make(catalog, "books")
    assert lookups.collection("default", "books").id == first
    clock.now += 1.0
    assert lookups.collection("default", "books").id == second
    delete_collection(catalog, tenant=TENANT, name="books")
    lookups.forget("default", "books")
    with pytest.raises(Refused, match="has no collection 'books'"):
        lookups.collection("default", "books")


@pytest.mark.parametrize(
    ("model", "asked", "patient"),
    [
        ("minilm", {"query": "a"}, False),
        ("openai/text-embedding-3-small", {"query": "a"}, True),
        ("openai/text-embedding-3-small", {"vector": [1.0, 2.0]}, False),
        ("openai/text-embedding-3-small", {"vector": packed_vector([1.0, 2.0])}, False),
        ("minilm", {"vector": [1.0]}, True),  # who knows which generation has those dimensions?
        ("minilm", {"vector": packed_vector([1.0, 2.0, 3.0])}, True),
        (None, {"query": "a"}, True),
    ],
)
def test_searches_that_wait_for_others_do_not_hold_up_those_that_compute(model, asked, patient):
    info = SimpleNamespace(generation=SimpleNamespace(model=model, dimensions=2)) if model else None
    components = SimpleNamespace(
        lookups=SimpleNamespace(remembered=lambda *_: info), searches="searches", patient="patient"
    )
    found = threads_for(components, "default", "books", SearchQuery(**asked))
    assert found == ("patient" if patient else "searches")


def test_lookups_never_answer_for_another_tenant(catalog):
    make(catalog, "books")
    lookups = Lookups(catalog, remembered_s=60.0)
    lookups.collection("default", "books")
    with pytest.raises(Refused, match="no tenant 'other'"):
        lookups.collection("other", "books")


def test_every_error_of_the_folders_below_has_a_status():
    """A new error class without a line in TRANSLATIONS would be answered as a defect."""
    unworded = {"StorageError", "PipelineError", "ParseError"}  # bases; parsing happens in workers
    for module in (storage_errors, pipeline_errors):
        for name, kind in inspect.getmembers(module, inspect.isclass):
            if issubclass(kind, Exception) and kind.__module__ == module.__name__ and name not in unworded:
                assert any(issubclass(kind, known) for known, *_ in TRANSLATIONS), name


def test_subclasses_are_translated_before_what_they_derive_from():
    kinds = [kind for kind, *_ in TRANSLATIONS]
    for position, kind in enumerate(kinds):
        assert not any(issubclass(later, kind) for later in kinds[position + 1 :]), kind


def test_a_defect_is_not_explained_to_callers():
    assert refusal(KeyError("secret")) is None


@pytest.mark.parametrize(
    ("kind", "body", "param", "words"),
    [
        (NewCollection, '{"nmae": "x"}', "nmae", "did you mean 'name'"),
        (NewCollection, '{"name": "x", "chunking": {"overlap": 1}}', "chunking.overlap", "'overlap_tokens'"),
        (NewCollection, '{"name": "x", "zzz": 1}', "zzz", "there are name, model, dimensions, chunking, metric"),
        (Submission, '{"documents": [{"source": "a"}, {"surce": "b"}]}', "documents[1].surce", "'source'"),
        (Submission, '{"documents": [{"source": 5, "text": 6}]}', "documents[0].source", "1 more problem"),
        (SearchQuery, '{"query": "x", "as_of": []}', "as_of", "field 'as_of': input should be"),
    ],
)
def test_a_misspelt_field_is_recognised_where_it_stands(kind, body, param, words):
    with pytest.raises(Refused) as caught:
        parse_json(body.encode(), kind)
    assert caught.value.param == param
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("kind", "body", "path"),
    [
        (SearchQuery, '{"query": "x", "query": "y"}', "query"),
        (SearchQuery, '{"query": "x", "que\\u0072y": "y"}', "query"),
        (SearchQuery, '{"query": "x", "filter": {"type": "eq", "key": "a", "value": 1, "value": 2}}', "filter.value"),
        (NewCollection, '{"name": "x", "chunking": {"size_tokens": 5, "size_tokens": 5}}', "chunking.size_tokens"),
        (
            Submission,
            '{"documents": [{"source": "a", "text": "b"}, {"source": "c", "text": "d", "text": "e"}]}',
            "documents[1].text",
        ),
        (
            Submission,
            '{"documents": [{"source": "a", "text": "b", "metadata": {"x": [1, {"y": 1, "y": 1}]}}]}',
            "documents[0].metadata.x[1].y",
        ),
    ],
)
def test_a_field_that_is_given_twice_is_refused_where_it_stands(kind, body, path):
    with pytest.raises(Refused, match="is given twice: give it once") as caught:
        parse_json(body.encode(), kind)
    assert (caught.value.status, caught.value.param) == (400, path)


@given(
    st.recursive(
        st.none() | st.text() | st.floats() | st.integers(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_field_is_taken_for_a_repeated_one(value):
    assert repeated_field(json.dumps(value).encode()) is None
    assert repeated_field(b'{"n": ' + b"9" * 10_000 + b"}") is None, "longer than Python's own limit for numbers"


@given(version=st.integers(0, 10**17))
def test_tokens_say_what_they_were_made_of(version):
    assert read_token(token_of("gen_1:2", version)) == ("gen_1:2", version)


@pytest.mark.parametrize("text", ["", ":", "gen_1", "gen_1:", "gen_1:-1", "gen_1:1.0", "gen_1:٣", "gen_1:" + "9" * 30])
def test_whatever_is_no_token_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 its caller words it
        read_token(text)


def test_a_failure_of_other_dimensions_does_not_hide_behind_the_model_s_name(tmp_path):
    known = Settings(data_dir=tmp_path, embedding={"model": "hash-256"})
    embedders = QueryEmbedders(known)
    embedders.warm_all([("hash-256", 256), ("hash-256", 320), ("hash-640", 640)])
    assert list(embedders.failures) == ["hash-256 of 320 dimensions"]
    embedders.warm("hash-256", 256)
    assert list(embedders.failures) == ["hash-256 of 320 dimensions"]
    embedders.close()


def test_a_check_that_nobody_waits_for_any_more_is_told_so_and_what_it_raises_comes_out_as_it_is():
    """Otherwise a check of minutes goes on for a client that hung up."""

    class HungUp:
        async def is_disconnected(self) -> bool:
            return True

    left = threading.Event()

    def work() -> None:
        assert left.wait(30)
        raise Refused("nobody waits")

    async def ask() -> None:
        limiter = anyio.CapacityLimiter(1)
        await while_waited_for(HungUp(), work, left=left, limiter=limiter)  # type: ignore[arg-type]

    with pytest.raises(Refused, match="nobody waits"):
        anyio.run(ask)
