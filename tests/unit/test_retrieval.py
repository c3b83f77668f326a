"""Retrieval: what is asked is checked, embedded once, and answered from one version."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from penstock.pipeline.errors import InvalidQuery
from penstock.pipeline.filters import parse_filter
from penstock.pipeline.retrieval import highlight, retrieve
from penstock.storage.catalog.collections import get_collection
from penstock.storage.errors import NotFound, NotYet
from penstock.storage.ids import TenantId
from penstock.storage.search.snapshots import SnapshotCache

from ..storage_samples import DIMENSIONS, TENANT, new_store, unit_vectors

NOW = 5_000.0


class Answers:
    """An embedder that gives the same vector for every question, and keeps them."""

    def __init__(self, vector) -> None:
        self.vector = vector
        self.asked: list[str] = []

    def embed_query(self, text: str):
        self.asked.append(text)
        return self.vector


@pytest.fixture
def store(tmp_path):
    store = new_store(tmp_path)
    store.add({"a": ["one", "two"], "b": ["three"], "c": ["four"]})
    return store


@pytest.fixture
def ask(store):
    cache = SnapshotCache(store.catalog, store.objects, poll_s=3600)
    info = get_collection(store.catalog, tenant=TENANT, name="gen_1")

    def ask(*, embedder=None, **asked):
        asked = {"now": NOW, **asked}
        return retrieve(lambda model, _dimensions: embedder[model], cache, asked.pop("collection", info), **asked)

    yield ask
    cache.close()


def test_a_text_is_embedded_once_with_the_model_of_the_generation(ask):
    embedder = Answers(unit_vectors(4)[2])
    found = ask(embedder={"hash": embedder}, text="What is three?", k=2)
    assert embedder.asked == ["What is three?"]
    assert found.hits[0].text == "three"
    assert (len(found.hits), found.version, found.generation_id, found.plan) == (2, 1, "gen_1", None)
    assert min(found.timings.embedding_s, found.timings.waiting_s, found.timings.searching_s) >= 0


def test_a_vector_needs_no_embedder_and_filters_apply(ask):
    found = ask(vector=unit_vectors(4)[2].tolist(), filter=parse_filter("topic=a"), explain=True)
    assert {hit.text for hit in found.hits} == {"one", "two"}
    assert [(plan.method, plan.accepted) for plan in found.plan] == [("scan", 2)]


def test_a_search_covers_the_version_it_must(store, ask):
    ask(vector=unit_vectors(1)[0])
    store.add({"d": ["five"]}, seed=4)
    found = ask(vector=unit_vectors(1, seed=4)[0], k=1, min_version=2)
    assert (found.version, found.hits[0].text) == (2, "five")
    with pytest.raises(NotYet):
        ask(vector=unit_vectors(1)[0], min_version=3, timeout_s=0.0)


@pytest.mark.parametrize(
    ("asked", "param", "says"),
    [
        ({"k": 0, "text": "a"}, "k", "k is 0: ask for 1 to 1,000"),
        ({"k": 1001, "text": "a"}, "k", "1,000"),
        ({"k": 51, "max_k": 50, "text": "a"}, "k", "1 to 50 hits"),
        ({"text": "x" * 65_537}, "query", "65,537 characters: ask with at most 65,536"),
        ({"ef": 0, "text": "a"}, "ef", "4,096"),
        ({}, "query", "either a text or a vector"),
        ({"text": "a", "vector": [1.0]}, "query", "either a text or a vector"),
        ({"text": " \n"}, "query", "empty"),
        ({"vector": [1.0] * 9}, "vector", "9 dimensions, the collection has 8 .model 'hash'"),
        ({"vector": [[1.0] * 8]}, "vector", "1x8 dimensions"),
        ({"vector": 3.0}, "vector", "no dimensions"),
        ({"vector": ["a"] * 8}, "vector", "not a list of numbers"),
        ({"vector": [float("nan")] * 8}, "vector", "not within"),
        ({"vector": [1e300] * 8}, "vector", "not within"),
        ({"vector": [1e30] * 8}, "vector", "not within"),
        ({"vector": [0] * 8}, "vector", "zero"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_the_part_to_change(ask, asked, param, says):
    with pytest.raises(InvalidQuery, match=says) as refused:
        ask(**asked)
    assert refused.value.param == param


def test_another_tenants_collection_is_not_found(store, ask):
    info = get_collection(store.catalog, tenant=TENANT, name="gen_1")
    with pytest.raises(NotFound):
        ask(vector=np.ones(DIMENSIONS), collection=replace(info, tenant_id=TenantId("rival")))


def marked(text: str, query: str) -> list[str]:
    return [text[start:end] for start, end in highlight(text, query)]


@pytest.mark.parametrize(
    ("text", "query", "words"),
    [
        ("The Foxes jumped over foxy FOX.", "fox jumping", ["Foxes", "jumped", "FOX"]),
        ("Cities of a city; making what we make.", "city makes", ["Cities", "city", "making", "make"]),
        ("He was running, she runs, they run.", "run", ["running", "runs", "run"]),
        ("A pass passes; falling falls.", "pass fall", ["pass", "passes", "falling", "falls"]),
        ("to be or not to be", "to be or not to be", ["to", "be", "or", "not", "to", "be"]),
        ("The answer is in the tree.", "what is the answer", ["answer"]),
        ("straße, Straße", "STRASSE straße", ["straße", "Straße"]),
        ("東京タワーは高い", "東京", ["東京"]),
        ("snake_case and kebab-case", "case", ["case", "case"]),
        ("Chapter 12, 120", "12", ["12"]),
        ("nothing here", "", []),
        ("", "something", []),
    ],
)
def test_words_of_the_query_are_marked_whatever_their_case_and_ending(text, query, words):
    assert marked(text, query) == words


def test_marked_spans_are_in_order_and_apart():
    spans = highlight("東京都 東京都庁 fox 東京", "東京 東京都 fox")
    assert spans == sorted(spans)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
