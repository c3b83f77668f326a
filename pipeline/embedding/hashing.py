"""Vectors made from the words' hashes: no model at all. For tests, and for measuring everything around a model.

The same text has the same vector on every machine. Texts that share words (between bytes that are not letters or digits
of ASCII, in any case) are nearer than texts that do not. Two texts of the same words in another order differ a little.
"""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt

from ..chunking import count_tokens
from .embedder import ModelCard, Vectors

_BLOCK_BYTES = 1 << 16  # what stays in the processor's cache
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ORDER_WEIGHT = 0.25  # of the two coordinates that tell texts of the same words apart

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]


class Hashing:
    """`Embedder` without a model."""

    def __init__(self, card: ModelCard) -> None:
        self.card = card

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        vectors = np.empty((len(texts), self.card.dimensions), np.float32)
        encoded = [text.encode("utf-8", "replace") for text in texts]
        for start, stop in _blocks([len(text) for text in encoded]):
            vectors[start:stop] = _embed(encoded[start:stop], self.card.dimensions)
        return vectors

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self.embed_passages([text])[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [count_tokens(text) for text in texts]

    def check(self) -> None:
        """Nothing to load."""

    def close(self) -> None:
        """Nothing to let go of."""


def _blocks(lengths: list[int]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for index, length in enumerate(lengths):
        if size + length > _BLOCK_BYTES and index > start:
            yield start, index
            start, size = index, 0
        size += length
    if lengths:
        yield start, len(lengths)


def _embed(texts: list[bytes], dimensions: int) -> Vectors:
    """Return float32[n, d]: every word adds to one coordinate and its sign, as in feature hashing (arXiv 0902.2206)."""
    hashes, owners = _words(texts)
    sums = np.zeros((len(texts), dimensions))
    for shift in (0, 20):  # two coordinates a word: fewer words that look alike
        _add(sums, owners, hashes >> np.uint64(shift), np.ones(len(hashes)))
    np.copysign(np.sqrt(np.abs(sums)), sums, out=sums)  # frequent words count less
    whole = _whole(hashes, owners, len(texts))
    _add(sums, np.arange(len(texts)), whole, np.full(len(texts), _ORDER_WEIGHT))
    _add(sums, np.arange(len(texts)), whole >> np.uint64(20), np.full(len(texts), _ORDER_WEIGHT * 2))
    sums /= np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]
    return sums.astype(np.float32)
