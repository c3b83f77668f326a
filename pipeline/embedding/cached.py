"""Vectors from the cache where it has them, from the model for the rest. Knows neither a server nor a model."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..errors import InputRejected
from .embedder import Embedder, Vectors

DIGEST_BYTES = 16


class Cache(Protocol):
    """Where vectors are kept by the digest of their text: `storage.cache.EmbeddingCache`, or a dictionary in a test."""

    def get_many(
        self, model: str, dimensions: int, digests: Sequence[bytes], *, tenant: str
    ) -> tuple[Vectors, npt.NDArray[np.bool_]]: ...

    def put_many(
        self, model: str, dimensions: int, digests: Sequence[bytes], vectors: Vectors, *, tenant: str
    ) -> None: ...


def embed_with_cache(embedder: Embedder, cache: Cache, tenant: str, texts: Sequence[str]) -> tuple[Vectors, int]:
    """Return float32[n, d] of ``texts`` as passages, and how many of them needed no embedding.

    A text that occurs several times is embedded once. New vectors are cached before this returns.

    Raises:
        InputRejected: its index is that of the first such text in ``texts``.
        EmbeddingError: as `Embedder.embed_passages`.
    """
    card = embedder.card
    digests = [digest(text) for text in texts]
    vectors, known = cache.get_many(card.name, card.dimensions, digests, tenant=tenant)
    missing = np.flatnonzero(~known)
    first: dict[bytes, int] = {}
    for index in missing.tolist():
        first.setdefault(digests[index], index)
    if first:
        rows = list(first.values())
        fresh = _embed(embedder, texts, rows)
        cache.put_many(card.name, card.dimensions, list(first), fresh, tenant=tenant)
        place = {one: row for row, one in enumerate(first)}
        vectors[missing] = fresh[[place[digests[index]] for index in missing.tolist()]]
    return vectors, len(texts) - len(first)


def digest(text: str) -> bytes:
    """Return the 16 bytes by which a text is known in the cache."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def _embed(embedder: Embedder, texts: Sequence[str], rows: list[int]) -> Vectors:
    try:
        return embedder.embed_passages([texts[row] for row in rows])
    except InputRejected as error:
        if error.index is None:
            raise
        raise InputRejected(str(error), index=rows[error.index]) from error
