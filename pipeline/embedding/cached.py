"""Vectors from the cache where it has them, from the model for the rest. Knows neither a server nor a model."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from penstock.storage.cache import text_digest
from penstock.storage.ids import TenantId

from ..errors import InputRejected
from .embedder import Embedder, Vectors


class Cache(Protocol):
    """What is needed of `storage.cache.EmbeddingCache`."""

    def get_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes]
    ) -> tuple[Vectors, npt.NDArray[np.bool_]]: ...

    def put_many(
        self, tenant: TenantId, model: str, dimensions: int, digests: Sequence[bytes], vectors: Vectors
    ) -> None: ...


class Looked(NamedTuple):
    """``vectors``: float32[n, d]. ``hits``: how many of the texts the cache knew; ``asked``: which the model got."""

    vectors: Vectors
    hits: int
    asked: Sequence[int]


def embed_with_cache(embedder: Embedder, cache: Cache, tenant: TenantId, texts: Sequence[str]) -> Looked:
    """Return ``texts`` as passages.

    A text that occurs several times is embedded once. New vectors are cached before this returns.

    Raises:
        InputRejected: its index is the first place of such a text in ``texts``.
        EmbeddingError: as `Embedder.embed_passages`.
    """
    card = embedder.card
    model = f"{card.name}@{card.fingerprint}" if card.fingerprint else card.name
    digests = [text_digest(text) for text in texts]
    vectors, known = cache.get_many(tenant, model, card.dimensions, digests)
    missing = np.flatnonzero(~known).tolist()
    first: dict[bytes, int] = {}
    for index in missing:
        first.setdefault(digests[index], index)
    if first:
        fresh = _embed(embedder, texts, list(first.values()))
        cache.put_many(tenant, model, card.dimensions, list(first), fresh)
        rows = {digest: row for row, digest in enumerate(first)}
        vectors[missing] = fresh[[rows[digests[index]] for index in missing]]
    return Looked(vectors, len(texts) - len(missing), list(first.values()))


def _embed(embedder: Embedder, texts: Sequence[str], places: list[int]) -> Vectors:
    try:
        return embedder.embed_passages([texts[place] for place in places])
    except InputRejected as error:
        if error.index is None:
            raise
        raise InputRejected(str(error), index=places[error.index]) from error
