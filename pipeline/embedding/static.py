"""wordllama's static vectors: the mean of one vector per token, 256 dimensions. Much faster than MiniLM, and weaker.

Reads the two files of the package and imports none of it: the package sets up logging for the whole process and looks
for downloads when imported.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ProviderMisconfigured
from .embedder import ModelCard, Vectors
from .files import checked, imported
from .vectors import unit_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

WEIGHTS_SHA256 = "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5"
TOKENIZER_SHA256 = "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68"
GATHERED_TOKENS = 8192  # at once: 8 MiB of vectors


class Static:
    """`Embedder` of the bundled static vectors."""

    def __init__(self, card: ModelCard) -> None:
        self.card = replace(card, fingerprint=WEIGHTS_SHA256[:16])
        self._directory = _directory()

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.card.dimensions), np.float32)
        ids = [one.ids for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]
        start = 0
        while start < len(ids):
            stop, tokens = start, 0
            while stop < len(ids) and (stop == start or tokens + len(ids[stop]) <= GATHERED_TOKENS):
                tokens += len(ids[stop])
                stop += 1
            vectors[start:stop] = self._sums(ids[start:stop])
            start = stop
        return unit_rows(vectors)

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self.embed_passages([text])[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(one.ids) for one in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def check(self) -> None:
        self.embed_query("check")

    def close(self) -> None:
        """Nothing to let go of."""

    def _sums(self, ids: list[list[int]]) -> Vectors:
        """Return the sum of each text's token vectors, zero for a text without tokens; the mean points the same way."""
        lengths = np.array([len(one) for one in ids])
        rows = self._table.take(np.fromiter(chain.from_iterable(ids), np.int64, lengths.sum()), axis=0, mode="clip")
        sums = np.zeros((len(ids), rows.shape[1]), np.float32)
        filled = lengths > 0
        if filled.any():
            begins = np.cumsum(lengths) - lengths
            sums[filled] = np.add.reduceat(rows, begins[filled], axis=0)
        return sums

    @cached_property
    def _table(self) -> Vectors:
        data = checked(self._directory / "weights" / "l2_supercat_256.safetensors", WEIGHTS_SHA256, model="static")
        weights = imported("safetensors.numpy", model="static").load(data)["embedding.weight"]
        table: Vectors = np.ascontiguousarray(weights, np.float32)
        return table

    @cached_property
    def _tokenizer(self) -> "Tokenizer":
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive a fork
        path = self._directory / "tokenizers" / "l2_supercat_tokenizer_config.json"
        tokenizer: Tokenizer = imported("tokenizers", model="static").Tokenizer.from_buffer(
            checked(path, TOKENIZER_SHA256, model="static")
        )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer


def _directory() -> Path:
    found = find_spec("wordllama")
    if found is None or found.origin is None:
        version = ".".join(map(str, sys.version_info[:2]))
        raise ProviderMisconfigured(
            "The model static needs the package wordllama, which is not installed: pip install 'penstock[static]'."
            f" It has no wheels for Python 3.14 and later (this is {version}) and for Linux on ARM;"
            " there choose another model",
            setting="embedding.model",
        )
    return Path(found.origin).parent
