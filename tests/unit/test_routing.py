"""A query vector goes where its dimensions are, is cut on purpose, or is refused by the dimensions that would do."""

from dataclasses import replace

import numpy as np
import pytest

from penstock.pipeline.embedding import DeclaredModel, model_card
from penstock.pipeline.errors import InvalidQuery, ProviderMisconfigured
from penstock.pipeline.routing import route_vector
from penstock.storage.catalog.generations import GenerationInfo
from penstock.storage.ids import CollectionId, GenerationId, ManifestVersion, TenantId

ACTIVE = GenerationInfo(
    GenerationId("gen_active"), TenantId("acme"), CollectionId("col_1"), "active", "minilm", 384, "cosine", "none",
    {}, 0, "manifest", ManifestVersion(3), 10, 1.0,
)  # fmt: skip
FORMER = replace(ACTIVE, id=GenerationId("gen_former"), state="retired", model="static", dimensions=256)
BUILT = replace(ACTIVE, id=GenerationId("gen_built"), state="building", model="hash-640", dimensions=640)
DROPPED = replace(FORMER, id=GenerationId("gen_dropped"), state="dropped", dimensions=800, manifest=None)
CUT = replace(ACTIVE, model="openai/text-embedding-3-small", dimensions=512)


def vector(dimensions: int) -> np.ndarray:
    return np.random.default_rng(dimensions).standard_normal(dimensions).astype(np.float32)


def route(given, generation=ACTIVE, *, full: int | None = None, others=(FORMER, BUILT, DROPPED)):
    return route_vector(
        given, generation, others=lambda: [generation, *others], full_dimensions_of=lambda _generation: full
    )


def test_a_vector_that_fits_asks_nobody_what_else_there_is():
    def nobody():
        raise AssertionError

    found = route_vector(vector(384), ACTIVE, others=nobody, full_dimensions_of=nobody)
    assert (found.generation, found.cut_from) == (ACTIVE, None)
    assert np.array_equal(found.query, vector(384))


def test_a_vector_of_the_model_before_is_answered_by_the_generation_before():
    found = route(vector(256))
    assert (found.generation, found.cut_from) == (FORMER, None)
    assert np.array_equal(found.query, vector(256))


@pytest.mark.parametrize("unready", [replace(FORMER, state="building"), replace(FORMER, manifest=None)])
def test_a_generation_that_never_served_or_has_no_files_answers_nothing(unready):
    with pytest.raises(InvalidQuery, match="256 dimensions, the collection has 384"):
        route(vector(256), others=[unready])


def test_a_whole_vector_is_cut_to_a_generation_of_a_matryoshka_model_and_has_length_one():
    found = route(7 * vector(1_536), CUT, full=1_536)
    assert (found.generation, found.cut_from) == (CUT, 1_536)
    np.testing.assert_allclose(np.linalg.norm(found.query), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found.query, vector(1_536)[:512] / np.linalg.norm(vector(1_536)[:512]), rtol=1e-5)
    assert found.query.dtype == np.float32


def test_a_generation_of_just_these_dimensions_comes_before_cutting():
    whole = replace(FORMER, dimensions=1_536)
    assert route(vector(1_536), CUT, full=1_536, others=[whole]).generation == whole


@pytest.mark.parametrize(
    ("given", "generation", "full", "says"),
    [
        (vector(300), ACTIVE, None, r"300 dimensions, the collection has 384 \(model 'minilm'\) or 256 \(model"),
        (vector(300), ACTIVE, None, r"'static', which served before\)$"),
        (vector(640), ACTIVE, None, "those of 'hash-640' will do once the generation that is being built has taken"),
        (vector(800), CUT, 1_536, r"has 512 \(model 'openai/text-embedding-3-small', or 1536 to be cut to those\)"),
        (vector(256)[None], ACTIVE, None, "1x256 dimensions"),
        (np.zeros(256, np.float32), ACTIVE, None, "zero, which has no direction"),
        (np.r_[np.zeros(512), np.ones(1_024)], CUT, 1_536, "the first 512 components of the vector are zero"),
        (np.r_[np.ones(512), np.full(1_024, np.nan)], CUT, 1_536, "not within"),
    ],
)  # fmt: skip
def test_what_fits_nowhere_is_refused_by_what_would_do(given, generation, full, says):
    with pytest.raises(InvalidQuery, match=says) as refused:
        route(given, generation, full=full)
    assert refused.value.param == "vector"


def test_only_matryoshka_models_may_be_cut_and_the_error_says_which_are():
    with pytest.raises(ProviderMisconfigured) as refused:
        model_card("minilm", dimensions=256)
    assert "384 dimensions, which cannot be cut to 256: leave dimensions out" in str(refused.value)
    assert "openai/text-embedding-3-small, openai/text-embedding-3-large can be cut" in str(refused.value)
    with pytest.raises(ProviderMisconfigured, match="256 to 1536 dimensions, not of 2000: set dimensions to"):
        model_card("openai/text-embedding-3-small", dimensions=2_000)
    with pytest.raises(ProviderMisconfigured, match="openai_shortest_dimensions says to how many they may be cut"):
        model_card("openai/other", dimensions=512, declared=DeclaredModel(dimensions=768))


def test_a_declared_model_may_be_cut_as_far_as_is_declared():
    declared = DeclaredModel(dimensions=768, shortest_dimensions=300, query_prefix="q: ")
    card = model_card("openai/nomic", dimensions=512, declared=declared)
    assert (card.dimensions, card.full_dimensions, card.query_prefix) == (512, 768, "q: ")
    assert model_card("openai/nomic", declared=declared).full_dimensions is None
    with pytest.raises(ProviderMisconfigured, match="300 to 768 dimensions, not of 256"):
        model_card("openai/nomic", dimensions=256, declared=declared)
    with pytest.raises(ProviderMisconfigured, match="no fewer than 1024") as refused:
        model_card("openai/nomic", declared=DeclaredModel(dimensions=768, shortest_dimensions=1_024))
    assert refused.value.setting == "embedding.openai_shortest_dimensions"
