"""What every embedder promises, whichever provider is behind it."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from penstock.pipeline.embedding import DeclaredModel, Embedder, EmbeddingOptions, model_card, open_embedder
from penstock.pipeline.embedding.billing import Billable
from penstock.pipeline.embedding.cards import CARDS, HUB_MODELS
from penstock.pipeline.errors import InputRejected, ProviderMisconfigured

from ..embedding_endpoint import DIMENSIONS, Endpoint
from ..hub_models import HAS_TORCH, install_stand_ins, make_models

PREFIXED = DeclaredModel(
    dimensions=DIMENSIONS, input_limit_tokens=600, query_prefix="query: ", passage_prefix="passage: "
)
MODELS = ["minilm", "static", "hash", "hash-256", "openai/local", "openai/prefixed", *HUB_MODELS]
CUT = {"openai/text-embedding-3-small": 512, "openai/declared": 512, "sentence-transformers/bge-m3": 256}
MATRYOSHKA = DeclaredModel(dimensions=1_024, shortest_dimensions=256)


def declared_of(model: str, dimensions: int | None) -> DeclaredModel:
    if dimensions is not None:
        return MATRYOSHKA
    return PREFIXED if model == "openai/prefixed" else DeclaredModel(dimensions=DIMENSIONS)


TEXTS = [
    "The penstock carries water from the dam to the turbine.",
    "Flüsse, Wehre und Schleusen: größer als gedacht.",
    "水力发电站利用水的势能发电。",
    "a",
    "SELECT * FROM turbines WHERE output_mw > 300; -- 😀",
    "word " * 150,
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture(scope="module")
def wide_endpoint() -> Iterator[Endpoint]:
    """It makes 1,024 dimensions, or as many as it is asked for: as Matryoshka models do."""
    server = Endpoint()
    server.dimensions, server.shortens = 1_024, True
    yield server
    server.close()


@pytest.fixture(scope="module", params=[*((model, None) for model in MODELS), *CUT.items()], ids=str)
def embedder(
    request: pytest.FixtureRequest,
    endpoint: Endpoint,
    wide_endpoint: Endpoint,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Embedder]:
    (model, dimensions), models_dir = request.param, tmp_path_factory.mktemp("models")
    declared = declared_of(model, dimensions)
    url = endpoint.url if dimensions is None else wide_endpoint.url
    options = EmbeddingOptions(threads=2, openai_base_url=url, declared=declared, models_dir=models_dir)
    with pytest.MonkeyPatch.context() as patch:
        if model in HUB_MODELS:
            install_stand_ins(patch)
            make_models(models_dir, model)
            if dimensions is not None:  # no model of the hub that is known is one of these yet
                patch.setitem(CARDS, model, replace(CARDS[model], shortest_dimensions=256))
        try:
            opened = open_embedder(model, options, dimensions=dimensions)
        except ProviderMisconfigured as error:
            if os.environ.get("CI") == "true" and model != "static":  # it has no wheels for every platform
                raise
            pytest.skip(str(error))
        yield opened
        opened.close()


def test_it_passes_its_own_check(embedder):
    embedder.check()


def test_vectors_are_float32_of_length_one(embedder):
    vectors = embedder.embed_passages(TEXTS)

    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.card.dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.abs(vectors @ vectors.T - np.eye(len(TEXTS))).max() < 0.99, "different texts have different vectors"


def test_a_vector_does_not_depend_on_the_texts_beside_it(embedder):
    together = embedder.embed_passages(TEXTS)

    np.testing.assert_allclose(embedder.embed_passages(TEXTS[::-1])[::-1], together, atol=1e-5)
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(embedder.embed_passages([text])[0], vector, atol=1e-5)


def test_a_query_is_one_vector_in_the_same_space(embedder):
    card, prefixes = embedder.card, (embedder.card.query_prefix, embedder.card.passage_prefix)
    vector = embedder.embed_query(TEXTS[0])

    assert vector.shape == (card.dimensions,)
    assert vector.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vector), 1, atol=1e-5)
    if prefixes == ("", ""):
        assert vector @ embedder.embed_passages([TEXTS[0]])[0] > 0.99
    elif not card.passage_prefix:
        assert vector @ embedder.embed_passages([card.query_prefix + TEXTS[0]])[0] > 0.99
    else:
        assert vector @ embedder.embed_passages([TEXTS[0]])[0] < 0.99, "the prefixes make a difference"


def test_no_texts_have_no_vectors(embedder):
    assert embedder.embed_passages([]).shape == (0, embedder.card.dimensions)
    assert embedder.count_tokens([]) == []


def test_tokens_are_counted_for_each_text(embedder):
    counts = embedder.count_tokens(TEXTS)

    assert len(counts) == len(TEXTS)
    assert all(isinstance(count, int) and count > 0 for count in counts)
    assert counts[5] >= 150


def test_a_text_above_the_limit_is_rejected_by_its_place_and_one_at_the_limit_is_read(embedder):
    limit = embedder.card.input_limit_tokens
    if limit is None:
        pytest.skip("it reads texts of any length")
    prefix = embedder.card.passage_prefix
    most = "word" + " word" * (limit - embedder.count_tokens([prefix + "word"])[0])
    assert embedder.count_tokens([prefix + most]) == [limit]

    with pytest.raises(InputRejected, match=str(limit)) as rejected:
        embedder.embed_passages(["short", most + " word", "short"])

    assert rejected.value.index == 1
    assert embedder.embed_passages([most]).shape == (1, embedder.card.dimensions)


def test_several_threads_may_embed_at_once(embedder):
    expected = embedder.embed_passages(TEXTS)
    barrier = threading.Barrier(4)

    def embed(_: int) -> np.ndarray:
        barrier.wait()
        return embedder.embed_passages(TEXTS)

    with ThreadPoolExecutor(4) as threads:
        for vectors in threads.map(embed, range(4)):
            np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_its_card_is_known_without_opening_it(embedder):
    card = embedder.card
    cut = None if card.full_dimensions is None else card.dimensions
    known = model_card(card.name, dimensions=cut, declared=declared_of(card.name, cut))
    assert replace(known, fingerprint=embedder.card.fingerprint) == embedder.card
    assert embedder.card.metric == "cosine"


def test_what_is_cut_is_paid_for_as_what_is_whole_is(embedder):
    """Else a budget would not hold for it."""

    class Noted:
        account = "acme"

        def __init__(self) -> None:
            self.reserved: list[int] = []
            self.tokens: list[int] = []

        def reserve(self, tokens: int) -> None:
            self.reserved.append(tokens)

        def paid(self, tokens: int, *, answered: bool = True) -> None:
            self.tokens.append(tokens)

    if embedder.card.provider != "openai":
        assert not isinstance(embedder, Billable)
        return
    assert isinstance(embedder, Billable)
    noted = Noted()
    again = embedder.billed_to(noted)
    np.testing.assert_allclose(again.embed_passages(TEXTS[:2]), embedder.embed_passages(TEXTS[:2]), atol=1e-6)
    assert again.card == embedder.card
    assert noted.reserved
    assert sum(noted.tokens) > 0


def test_vectors_that_are_cut_are_the_first_dimensions_of_whole_ones(embedder, wide_endpoint):
    if embedder.card.full_dimensions is None or (embedder.card.name in HUB_MODELS and HAS_TORCH):
        pytest.skip("its vectors are not cut, or nobody here knows the whole ones")
    if embedder.card.provider == "openai":
        whole = np.array([wide_endpoint.vector_of(text) for text in TEXTS])
    else:
        whole = open_embedder(f"hash-{embedder.card.full_dimensions}", EmbeddingOptions()).embed_passages(TEXTS)
    first = whole[:, : embedder.card.dimensions]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(embedder.embed_passages(TEXTS), expected, atol=1e-5)
    np.testing.assert_allclose(embedder.embed_query(TEXTS[0]), expected[0], atol=1e-5)
