"""Models of the hub: what is missing, what is damaged, what is fetched, and what reaches the package."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from penstock.pipeline.embedding import EmbeddingOptions, hub, missing, model_card, open_embedder
from penstock.pipeline.embedding.cards import BGE_QUERY, CARDS, HUB_MODELS
from penstock.pipeline.errors import InputRejected, ProviderMisconfigured, ProviderUnavailable

from ..hub_models import HAS_FASTEMBED, StandInTextEmbedding, install_stand_ins, make_models

MODEL = "fastembed/bge-small-en-v1.5"


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddingOptions:
    install_stand_ins(monkeypatch)
    return EmbeddingOptions(models_dir=tmp_path)


@pytest.fixture
def hub_module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("huggingface_hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return module


@pytest.mark.parametrize("model", HUB_MODELS)
def test_without_its_weights_a_model_says_how_to_get_them(options, model):
    with pytest.raises(ProviderMisconfigured, match=f"penstock models fetch {model}") as refused:
        open_embedder(model, options)

    assert refused.value.setting == "embedding.models_dir"
    assert [one.kind for one in missing(model_card(model), options)][-1] == "weights"


@pytest.mark.parametrize("model", HUB_MODELS)
def test_without_its_package_a_model_names_the_extra(tmp_path, monkeypatch, model):
    card = model_card(model)
    package = card.provider.replace("-", "_")
    make_models(tmp_path, model)
    monkeypatch.setitem(sys.modules, package, None)

    options = EmbeddingOptions(models_dir=tmp_path)
    with pytest.raises(ProviderMisconfigured, match=rf"{package}.*pip install 'penstock\[{card.provider}\]'"):
        open_embedder(model, options).check()

    [lack] = missing(card, options)
    assert (lack.kind, lack.name) == ("extra", card.provider)


def test_weights_that_cannot_be_read_are_named(options, tmp_path):
    make_models(tmp_path, MODEL)
    (tmp_path / MODEL / "model_optimized.onnx").write_bytes(b"<html>")

    with pytest.raises(ProviderMisconfigured, match="cannot be read from") as refused:
        open_embedder(MODEL, options).check()
    assert refused.value.setting == "embedding.models_dir"


def test_a_tokenizer_that_cannot_be_read_is_named(options, tmp_path):
    make_models(tmp_path, MODEL)
    (tmp_path / MODEL / "tokenizer.json").write_text("{")

    with pytest.raises(ProviderMisconfigured, match="fetches it again"):
        open_embedder(MODEL, options).count_tokens(["x"])


def test_a_folder_with_another_model_in_it_is_refused(options, tmp_path, monkeypatch):
    make_models(tmp_path, MODEL)
    monkeypatch.setattr(hub.FastEmbed, "__init__", lambda *_args, **_options: None)
    monkeypatch.setattr(hub.FastEmbed, "encode", lambda _self, texts: np.ones((len(texts), 512)))

    with pytest.raises(ProviderMisconfigured, match="384 dimensions"):
        open_embedder(MODEL, options).check()


@pytest.mark.skipif(HAS_FASTEMBED, reason="the stand-in notes what it is given")
def test_the_prefix_of_queries_reaches_the_package_and_passages_have_none(options, tmp_path):
    make_models(tmp_path, MODEL)
    StandInTextEmbedding.given.clear()
    embedder = open_embedder(MODEL, options)
    embedder.embed_passages(["what turns the wheel"])
    embedder.embed_query("what turns the wheel")

    assert StandInTextEmbedding.given == ["what turns the wheel", BGE_QUERY + "what turns the wheel"]


def test_a_query_that_only_its_prefix_makes_too_long_is_refused_with_that_reason(options, tmp_path):
    make_models(tmp_path, MODEL)
    embedder = open_embedder(MODEL, options)
    most = "word" + " word" * 509

    assert embedder.embed_passages([most]).shape == (1, 384)
    with pytest.raises(InputRejected, match=r"with the prefix it needs, .* reads 510"):
        embedder.embed_query(most)


def test_fetching_takes_the_pinned_revision_and_the_folder_is_there_as_a_whole(options, tmp_path, hub_module):
    model = HUB_MODELS[MODEL]

    def snapshot_download(repository: str, *, revision: str, local_dir: str, allow_patterns: list[str]) -> None:
        assert (repository, revision) == (model.repository, model.revision)
        assert allow_patterns == list(model.files)
        assert not (tmp_path / MODEL).exists()
        for name in ("model_optimized.onnx", "tokenizer.json"):
            (Path(local_dir) / name).write_bytes(b"new")

    hub_module.snapshot_download = snapshot_download
    assert hub.fetch(model_card(MODEL), tmp_path) == tmp_path / MODEL
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "model_optimized.onnx",
        "tokenizer.json",
    ]


def test_a_hub_that_cannot_be_reached_leaves_what_was_there_and_says_what_to_copy_where(tmp_path, hub_module):
    make_models(tmp_path, MODEL)
    before = (tmp_path / MODEL / "tokenizer.json").read_bytes()

    def snapshot_download(*_args, **_options) -> None:
        raise OSError("Network is unreachable")

    hub_module.snapshot_download = snapshot_download
    with pytest.raises(ProviderUnavailable, match=r"Network is unreachable.*copy its files to .*models_dir"):
        hub.fetch(model_card(MODEL), tmp_path)

    assert (tmp_path / MODEL / "tokenizer.json").read_bytes() == before


def test_a_hub_model_is_pinned_to_a_commit_and_its_card_says_what_its_provider_is():
    for name, model in HUB_MODELS.items():
        assert len(model.revision) == 40
        assert int(model.revision, 16)
        assert CARDS[name].provider == name.partition("/")[0]
