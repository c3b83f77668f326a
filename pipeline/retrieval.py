"""One search from question to hits: check it, embed the query, take a snapshot, search, say how it went.

The embedder and the snapshots are passed in; an interface only translates what comes in and goes out. No snapshot is
held while the query is embedded, for a remote provider may take seconds.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from numpy.typing import ArrayLike

from penstock.storage.limits import MAX_EF, MAX_K, MAX_QUERY_CHARACTERS
from penstock.storage.tokens import token_of

from .errors import EmbeddingError, InvalidQuery
from .highlighting import highlight
from .routing import Routed, route_vector

if TYPE_CHECKING:  # whoever only marks words needs no compiler and no SQL
    from penstock.storage.catalog.collections import CollectionInfo
    from penstock.storage.catalog.generations import GenerationInfo
    from penstock.storage.ids import GenerationId, ManifestVersion
    from penstock.storage.search.snapshots import Hit, SegmentPlan, SnapshotCache
    from penstock.storage.segments.fields import Filter

    from .embedding.embedder import DeclaredModel, Embedder

__all__ = ["MAX_EF", "MAX_K", "Retrieval", "Timings", "highlight", "retrieve"]

LEAST_EF = 64


@dataclass(frozen=True)
class Timings:
    """Seconds spent on turning the query into a vector, on waiting for the snapshot, and on searching it."""

    embedding_s: float
    waiting_s: float
    searching_s: float


@dataclass(frozen=True)
class Retrieval:
    """What a search found, and in which version. ``plan`` is there if it was asked for: one entry per segment.

    ``cut_from``: the dimensions of a vector that was cut to those of the generation; ``routed_to``: the generation that
    answered in the place of the active one, because it has the dimensions of the vector.
    """

    hits: "list[Hit]"
    generation: "GenerationInfo"
    version: "ManifestVersion"
    timings: Timings
    plan: "list[SegmentPlan] | None" = None
    cut_from: int | None = None
    routed_to: "GenerationId | None" = None

    @property
    def generation_id(self) -> "GenerationId":
        return self.generation.id

    def described(self, *, began: float) -> dict[str, Any]:
        """Return the answer as every interface gives it, ready for JSON; ``began``: by ``time.perf_counter``."""
        return {
            "hits": [hit.described() for hit in self.hits],
            "version": self.version,
            "token": token_of(self.generation.id, self.version),
            "took_ms": _ms(time.perf_counter() - began),
            "explain": None if self.plan is None else self._explained(self.plan),
        }

    def _explained(self, plan: "list[SegmentPlan]") -> dict[str, Any]:
        return {
            "model": self.generation.model,
            "metric": self.generation.metric,
            "dimensions": self.generation.dimensions,
            "cut_from": self.cut_from,
            "routed_to": self.routed_to,
            "embedding_ms": _ms(self.timings.embedding_s),
            "waiting_ms": _ms(self.timings.waiting_s),
            "searching_ms": _ms(self.timings.searching_s),
            "segments": [asdict(one) for one in plan],
        }


def retrieve(  # noqa: PLR0913  (the parts of a search are what they are)
    embedder_for: "Callable[[str, int], Embedder]",
    snapshots: "SnapshotCache",
    collection: "CollectionInfo",
    *,
    text: str | None = None,
    vector: ArrayLike | None = None,
    k: int = 10,
    max_k: int = MAX_K,
    filter: "Filter | None" = None,  # noqa: A002  (the word of the grammar)
    ef: int | None = None,
    min_version: int = 0,
    at: "GenerationInfo | None" = None,
    timeout_s: float = 5.0,
    now: float,
    explain: bool = False,
    others: "Callable[[], Sequence[GenerationInfo]]" = tuple,
    declared: "DeclaredModel | None" = None,
) -> Retrieval:
    """Search the active generation of ``collection`` by the meaning of ``text``, or by a vector.

    A vector of other dimensions is answered by another generation that has those, if one is kept: see `routing`.

    Args:
        embedder_for: gives the embedder of a model name and dimensions; not called for a vector.
        vector: f32[dimensions of a generation that serves], finite.
        k: 1 to ``max_k``, the setting of this server; fewer hits mean that there are no more.
        ef: how wide graphs are walked, up to `MAX_EF`; by default 64, or twice ``k`` where that is more.
        min_version: a version of the generation that the search must cover; ``timeout_s`` is how long to wait for it.
        at: the generation as it was at the version to search; by default the newest version that serves.
        now: seconds since 1970; what expired by then is not found.
        others: gives the other generations of the collection, for a vector that does not fit and the newest version.
        declared: what the settings say of remote models that nobody here knows.

    Raises:
        InvalidQuery: naming the part to change.
        EmbeddingError, NotFound, NotYet, Damaged, Unavailable: as they come.
    """
    _check_size(k=k, max_k=max_k, ef=ef)
    began = time.perf_counter()
    current = at is None and not min_version  # else a version of one generation is meant
    routed = _route(
        embedder_for,
        at or collection.generation,
        text=text,
        vector=vector,
        others=others if current else tuple,
        declared=declared,
    )
    embedded, generation = time.perf_counter(), routed.generation
    taking = (
        snapshots.get(collection.tenant_id, generation.id, min_version=min_version, timeout_s=timeout_s)
        if at is None
        else snapshots.get_past(at, timeout_s=timeout_s)
    )
    with taking as snapshot:
        taken = time.perf_counter()
        hits, plan = snapshot.explained(routed.query, k=k, filter=filter, ef=ef or max(LEAST_EF, 2 * k), now=now)
        version = snapshot.version
    timings = Timings(embedded - began, taken - embedded, time.perf_counter() - taken)
    routed_to = None if generation.id == (at or collection.generation).id else generation.id
    return Retrieval(hits, generation, version, timings, plan if explain else None, routed.cut_from, routed_to)


def _check_size(*, k: int, max_k: int, ef: int | None) -> None:
    if not 1 <= k <= max_k:
        raise InvalidQuery(f"k is {k}: ask for 1 to {max_k:,} hits", param="k")
    if ef is not None and not 1 <= ef <= MAX_EF:
        raise InvalidQuery(f"ef is {ef}: it can be 1 to {MAX_EF:,}", param="ef")


def _route(
    embedder_for: "Callable[[str, int], Embedder]",
    generation: "GenerationInfo",
    *,
    text: str | None,
    vector: ArrayLike | None,
    others: "Callable[[], Sequence[GenerationInfo]]",
    declared: "DeclaredModel | None",
) -> Routed:
    if (text is None) == (vector is None):
        raise InvalidQuery("a search needs either a text or a vector, and not both", param="query")
    if text is None:
        return route_vector(
            vector, generation, others=others, full_dimensions_of=partial(_full_dimensions, declared=declared)
        )
    if not text.strip():
        raise InvalidQuery("the query is empty: ask something, or search by a vector", param="query")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidQuery(
            f"the query has {len(text):,} characters: ask with at most {MAX_QUERY_CHARACTERS:,}", param="query"
        )
    return Routed(embedder_for(generation.model, generation.dimensions).embed_query(text), generation)


def _full_dimensions(generation: "GenerationInfo", *, declared: "DeclaredModel | None") -> int | None:
    """Return how many dimensions the model of ``generation`` makes, if its vectors are cut to fewer; else None."""
    from .embedding import DeclaredModel, model_card  # noqa: PLC0415  (only where a vector does not fit)

    try:
        card = model_card(generation.model, dimensions=generation.dimensions, declared=declared or DeclaredModel())
    except EmbeddingError:  # a model that is not known any more is searched by vectors all the same
        return None
    return card.full_dimensions


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
