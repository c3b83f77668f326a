"""Vectors from the cache where it has them, from the model for the rest. Knows neither a server nor a model."""

from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
import numpy.typing as npt

from penstock.storage.cache import Wanted, text_digest
from penstock.storage.ids import TenantId

from ..errors import InputRejected
from .embedder import Embedder, ModelCard, Vectors


class Lookup(Protocol):
    """What is needed of `storage.cache.Lookup`."""

    @property
    def vectors(self) -> Vectors: ...
    @property
    def found(self) -> npt.NDArray[np.bool_]: ...
    @property
    def mine(self) -> npt.NDArray[np.bool_]: ...

    def land(self, vectors: Vectors) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Patience(Protocol):
    """What is needed of `storage.cache.Patience`."""

    @property
    def over(self) -> bool: ...

    def rest(self) -> None: ...


class Cache(Protocol):
    """What is needed of `storage.cache.EmbeddingCache`."""

    def patience(self, *, paid: bool) -> Patience: ...

    def look_up(self, wanted: Wanted, *, wait: bool = True) -> Lookup: ...


class Looked(NamedTuple):
    """``vectors``: float32[n, d]. ``hits``: how many of the texts the cache knew; ``asked``: which the model got."""

    vectors: Vectors
    hits: int
    asked: Sequence[int]


def embed_with_cache(
    embedder: Embedder,
    cache: Cache,
    tenant: TenantId,
    texts: Sequence[str],
    *,
    tokens: npt.NDArray[np.int64] | None = None,
) -> Looked:
    """Return ``texts`` as passages.

    A text that occurs several times is embedded once. One that somebody else embeds just now is waited for, and is a
    hit then; after the cache's patience it is embedded here too. New vectors are cached before this returns.
    ``tokens``: i64[n], of each text, by which the cache counts what it saved.

    Raises:
        InputRejected: its index is the first place of such a text in ``texts``.
        EmbeddingError: as `Embedder.embed_passages`.
    """
    wanted, places, of_text = _wanted(embedder, tenant, texts, tokens)
    vectors = np.zeros((len(wanted), wanted.dimensions), np.float32)
    rows, patience = np.arange(len(wanted)), cache.patience(paid=embedder.card.price_per_million_tokens != 0)
    asked: list[int] = []
    while True:
        with cache.look_up(wanted.only(rows), wait=not patience.over) as look:
            vectors[rows[look.found]] = look.vectors[look.found]
            mine = rows[look.mine]
            if len(mine):
                fresh = _embed(embedder, texts, [places[row] for row in mine.tolist()])
                look.land(fresh)
                vectors[mine] = fresh
                asked += mine.tolist()
            rows = rows[~(look.found | look.mine)]
        if not len(rows):
            break
        patience.rest()
    hits = len(texts) - int(wanted.texts[asked].sum())
    return Looked(vectors[of_text], hits, sorted(places[row] for row in asked))


def _wanted(
    embedder: Embedder, tenant: TenantId, texts: Sequence[str], tokens: npt.NDArray[np.int64] | None
) -> tuple[Wanted, list[int], npt.NDArray[np.int64]]:
    """Return each text once, in the order of their first places, these places, and for each of ``texts`` its row."""
    card = embedder.card
    rows: dict[bytes, int] = {}
    of_text = np.array([rows.setdefault(text_digest(text), len(rows)) for text in texts], np.int64)
    places = np.unique(of_text, return_index=True)[1].tolist()
    counts = np.zeros((2, len(rows)), np.int64)
    np.add.at(counts[0], of_text, 1)
    if tokens is not None:
        np.add.at(counts[1], of_text, tokens)
    usd_per_token = (card.price_per_million_tokens or 0.0) / 1e6
    return (
        Wanted(tenant, name_in_cache(card), card.dimensions, list(rows), counts[0], counts[1], usd_per_token),
        places,
        of_text,
    )


def name_in_cache(card: ModelCard) -> str:
    """Return the name that the cache knows a model by: vectors of other weights or another endpoint are others."""
    return f"{card.name}@{card.fingerprint}" if card.fingerprint else card.name


def _embed(embedder: Embedder, texts: Sequence[str], places: list[int]) -> Vectors:
    try:
        return embedder.embed_passages([texts[place] for place in places])
    except InputRejected as error:
        if error.index is None:
            raise
        raise InputRejected(str(error), index=places[error.index]) from error
