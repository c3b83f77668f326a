"""Models of the Hugging Face hub, run here by fastembed or sentence-transformers. Downloads only when told to.

The weights are a folder of their own, of one pinned revision, which may as well have been copied there by hand: a
process that embeds never asks the hub for anything. Tokens are counted by the model's own tokenizer, not by the
packages, which cut texts off without a word.
"""

import os
import shutil
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InputRejected, ProviderMisconfigured, ProviderUnavailable
from .cards import HUB_MODELS, PROVIDERS, HubModel
from .embedder import EmbeddingOptions, ModelCard, Vectors
from .files import imported
from .runs import runs
from .vectors import unit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL_TOKENS = 2  # one at each end, for every model there is a card for
TOKENIZER = "tokenizer.json"


class Engine(Protocol):
    """A package that runs the model. Safe from several threads."""

    def encode(self, texts: list[str]) -> npt.NDArray[Any]:
        """Return float[n, d]."""
        ...


class HubEmbedder:
    """`Embedder` of a model of the hub. ``engine``: the class that loads ``directory``, at the first text."""

    def __init__(
        self, card: ModelCard, options: EmbeddingOptions, *, directory: Path, engine: Callable[..., Engine]
    ) -> None:
        self.card = replace(card, fingerprint=HUB_MODELS[card.name].revision[:16])
        self._directory = directory
        self._threads = max(1, options.threads)
        self._run_tokens = options.batch_tokens
        self._engine_class = engine
        self._loading = threading.Lock()
        self._engine: Engine | None = None

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed(texts, prefix=self.card.passage_prefix)

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self._embed([text], prefix=self.card.query_prefix)[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def check(self) -> None:
        self.embed_query("check")

    def close(self) -> None:
        """Nothing to let go of."""

    def _embed(self, texts: Sequence[str], *, prefix: str) -> Vectors:
        vectors = np.empty((len(texts), self.card.dimensions), np.float32)
        if not texts:
            return vectors
        given = [prefix + text for text in texts]
        lengths = np.array(self.count_tokens(given), np.int64)
        self._refuse_long(lengths, prefix)
        engine = self._loaded()
        for run in runs(lengths + SPECIAL_TOKENS, self._run_tokens):
            vectors[run] = self._checked(engine.encode([given[row] for row in run]), len(run))
        return unit_rows(vectors)

    def _refuse_long(self, lengths: npt.NDArray[np.int64], prefix: str) -> None:
        limit = self.card.input_limit_tokens or 0
        long = np.flatnonzero(lengths > limit)
        if len(long):
            with_prefix = " with the prefix it needs" if prefix else ""
            raise InputRejected(
                f"The text has {lengths[long[0]]} tokens{with_prefix}, {self.card.name} reads {limit}:"
                " use shorter texts",
                index=int(long[0]),
            )

    def _checked(self, found: npt.NDArray[Any], count: int) -> npt.NDArray[Any]:
        if found.shape != (count, self.card.dimensions):
            raise ProviderMisconfigured(
                f"What is in {self._directory} makes vectors of shape {found.shape[1:]}, {self.card.name} makes such of"
                f" {self.card.dimensions} dimensions: `penstock models fetch {self.card.name}` fetches it again",
                setting="embedding.models_dir",
            )
        return found

    def _loaded(self) -> Engine:
        with self._loading:
            if self._engine is None:
                self._engine = self._engine_class(self.card, self._directory, threads=self._threads)
            return self._engine

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
        package = imported("tokenizers", model=self.card.name, extra=PROVIDERS[self.card.provider].extra)
        try:
            tokenizer: Tokenizer = package.Tokenizer.from_file(str(self._directory / TOKENIZER))
        except Exception as error:  # the package raises nothing narrower
            raise _unreadable(self.card, self._directory, error) from error
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


class FastEmbed:
    """`Engine`: onnxruntime by way of fastembed."""

    def __init__(self, card: ModelCard, directory: Path, *, threads: int) -> None:
        package = imported("fastembed", model=card.name, extra="fastembed")
        try:
            self._model = package.TextEmbedding(
                HUB_MODELS[card.name].name, threads=threads, specific_model_path=str(directory), cuda=False
            )
        except Exception as error:  # whatever is wrong with the files
            raise _unreadable(card, directory, error) from error

    def encode(self, texts: list[str]) -> npt.NDArray[Any]:
        return np.array(list(self._model.embed(texts, batch_size=len(texts))))


class SentenceTransformers:
    """`Engine`: PyTorch by way of sentence-transformers, on the best device that it finds.

    One text after the other thread's: its tokenizer is changed by each call.
    """

    def __init__(self, card: ModelCard, directory: Path, *, threads: int) -> None:
        package = imported("sentence_transformers", model=card.name, extra="sentence-transformers")
        imported("torch", model=card.name, extra="sentence-transformers").set_num_threads(threads)
        try:
            self._model = package.SentenceTransformer(str(directory), local_files_only=True, trust_remote_code=False)
        except Exception as error:  # whatever is wrong with the files
            raise _unreadable(card, directory, error) from error
        self._turn = threading.Lock()

    def encode(self, texts: list[str]) -> npt.NDArray[Any]:
        with self._turn:
            found: npt.NDArray[Any] = self._model.encode(
                texts, batch_size=len(texts), convert_to_numpy=True, show_progress_bar=False, prompt=""
            )
        return found


ENGINES: dict[str, Callable[..., Engine]] = {"fastembed": FastEmbed, "sentence-transformers": SentenceTransformers}


def open_hub_model(card: ModelCard, options: EmbeddingOptions) -> HubEmbedder:
    """Return the embedder of a model of the hub. Raises ProviderMisconfigured when its weights are not there."""
    directory = directory_of(card, options.models_dir)
    if not is_fetched(card, options.models_dir):
        raise ProviderMisconfigured(
            f"The weights of {card.name} are not in {directory}: `penstock models fetch {card.name}` downloads them;"
            " or copy them there, or set embedding.models_dir",
            setting="embedding.models_dir",
        )
    return HubEmbedder(card, options, directory=directory, engine=ENGINES[card.provider])


def directory_of(card: ModelCard, models_dir: Path | None) -> Path:
    """Return where the files of a hub model belong. Raises ProviderMisconfigured when there is no place for them."""
    if models_dir is None:
        raise ProviderMisconfigured(
            f"{card.name} needs a folder: set embedding.models_dir", setting="embedding.models_dir"
        )
    return models_dir / card.name


def is_fetched(card: ModelCard, models_dir: Path | None) -> bool:
    """Say whether weights and tokenizer are there."""
    directory = directory_of(card, models_dir)
    weights = (directory / name for name in HUB_MODELS[card.name].weights)
    return (directory / TOKENIZER).is_file() and any(path.is_file() for path in weights)


def fetch(card: ModelCard, models_dir: Path | None) -> Path:
    """Download the pinned revision of a hub model, and return its folder, which is there as a whole or not at all.

    Raises:
        ProviderUnavailable: the hub cannot be reached.
        ProviderMisconfigured: the package that downloads is not installed, or the folder cannot be written.
    """
    directory, model = directory_of(card, models_dir), HUB_MODELS[card.name]
    extra = PROVIDERS[card.provider].extra
    package = imported("huggingface_hub", model=card.name, extra=extra)
    part = directory.with_name(f"{directory.name}.part")
    try:
        part.mkdir(parents=True, exist_ok=True)  # what an interrupted download left is gone on with
    except OSError as error:
        raise ProviderMisconfigured(
            f"{part} cannot be made: {error.strerror}; set embedding.models_dir", setting="embedding.models_dir"
        ) from error
    _download(package, model, part, card)
    shutil.rmtree(directory, ignore_errors=True)
    part.replace(directory)
    return directory


def _download(package: Any, model: HubModel, part: Path, card: ModelCard) -> None:
    try:
        package.snapshot_download(
            model.repository, revision=model.revision, local_dir=str(part), allow_patterns=list(model.files)
        )
    except Exception as error:  # the package's own, those of its transport, and OSError
        raise ProviderUnavailable(
            f"{model.repository} cannot be fetched ({error}): download revision {model.revision} where the hub can be"
            f" reached, and copy its files to {part.with_name(part.name.removesuffix('.part'))}"
            f" (embedding.models_dir); {card.name} needs {', '.join(model.files)}"
        ) from error


def _unreadable(card: ModelCard, directory: Path, error: Exception) -> ProviderMisconfigured:
    return ProviderMisconfigured(
        f"{card.name} cannot be read from {directory} ({' '.join(str(error).split())[:200]}):"
        f" `penstock models fetch {card.name}` fetches it again",
        setting="embedding.models_dir",
    )
