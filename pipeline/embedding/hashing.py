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
_ORDER_WEIGHT = 0.25  # of what tells texts of the same words apart

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
    """Return float32[n, d]: every word adds to two coordinates, as in feature hashing (arXiv 0902.2206)."""
    hashes, owners = _words(texts)
    sums = _scattered(hashes, owners, len(texts), dimensions)
    np.copysign(np.sqrt(np.abs(sums)), sums, out=sums)  # frequent words count less
    whole = _whole(hashes, owners, len(texts))
    sums += _ORDER_WEIGHT * _scattered(whole, np.arange(len(texts)), len(texts), dimensions)
    sums /= np.sqrt(np.einsum("ij,ij->i", sums, sums))[:, None]
    return sums.astype(np.float32)


def _words(texts: list[bytes]) -> tuple[Hashes, Ints]:
    """Return the hash of every word of the texts, and which text it is of."""
    data = np.frombuffer(b" ".join([b"", *texts, b""]), np.uint8)
    values = _byte_values().take(data)
    is_word = values != 0
    edges = np.flatnonzero(is_word[1:] != is_word[:-1])
    before, until = edges[::2], edges[1::2]  # the byte before each word, and its last byte
    # Sums over each word of its bytes' values, and of the values times their places in it: so their order counts.
    # All modulo 2 ** 32, where differences of running sums are exact.
    running = np.cumsum(values, dtype=np.uint32)
    sums = running[until] - running[before]
    values *= np.arange(len(data), dtype=np.uint32)
    np.cumsum(values, dtype=np.uint32, out=running)
    placed = running[until] - running[before] - sums * before.astype(np.uint32)
    words = np.diff(before.searchsorted(np.cumsum([0, *(len(text) + 1 for text in texts)])))
    return _mixed(sums.astype(np.uint64) << np.uint64(32) | placed), np.repeat(np.arange(len(texts)), words)


def _whole(hashes: Hashes, owners: Ints, count: int) -> Hashes:
    """Return a hash of each text's words in their order; texts without words share one."""
    begins = owners.searchsorted(np.arange(count))
    places = (np.arange(len(owners)) - begins[owners]).astype(np.uint64)
    totals = np.concatenate((np.zeros(1, np.uint64), np.cumsum(_mixed(hashes + places * _MIX), dtype=np.uint64)))
    return _mixed(totals[np.append(begins[1:], len(owners))] - totals[begins])


def _scattered(hashes: Hashes, owners: Ints, count: int, dimensions: int) -> npt.NDArray[np.float64]:
    """Return float64[count, dimensions]: each hash adds 1 or -1 to two coordinates of its owner."""
    places = np.concatenate((hashes >> np.uint64(40), hashes >> np.uint64(16) & np.uint64(0xFFFFFF)))
    places %= np.uint64(dimensions)
    rows = owners * dimensions
    signs = (hashes & np.uint64(1)) * 2.0 - 1.0  # the same for both, which could cancel each other otherwise
    sums = np.bincount(np.tile(rows, 2) + places.astype(np.int64), np.tile(signs, 2), count * dimensions)
    return sums.astype(np.float64, copy=False).reshape(count, dimensions)


def _mixed(values: Hashes) -> Hashes:
    """Return each value with its bits spread over all others (the finalizer of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _byte_values() -> npt.NDArray[np.uint32]:
    """Return a value per byte: zero between words, the same for a large and a small letter."""
    values = (_mixed(np.arange(1, 257, dtype=np.uint64) * _MIX) >> np.uint64(32)).astype(np.uint32)
    values[ord("A") : ord("Z") + 1] = values[ord("a") : ord("z") + 1]
    for byte in range(128):
        if not chr(byte).isalnum():
            values[byte] = 0
    return values
