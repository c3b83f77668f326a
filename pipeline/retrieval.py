"""One search from question to hits: check it, embed the query, take a snapshot, search, say how it went.

The embedder and the snapshots are passed in; an interface only translates what comes in and goes out. No snapshot is
held while the query is embedded, for a remote provider may take seconds.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.storage.limits import MAX_EF, MAX_K, MAX_QUERY_CHARACTERS
from penstock.storage.tokens import token_of

from .errors import InvalidQuery
from .highlighting import highlight

if TYPE_CHECKING:  # whoever only marks words needs no compiler and no SQL
    from penstock.storage.catalog.collections import CollectionInfo, GenerationInfo
    from penstock.storage.ids import GenerationId, ManifestVersion
    from penstock.storage.search.snapshots import Hit, SegmentPlan, SnapshotCache
    from penstock.storage.segments.fields import Filter

    from .embedding.embedder import Embedder

__all__ = ["MAX_EF", "MAX_K", "Retrieval", "Timings", "highlight", "retrieve"]

LEAST_EF = 64
LARGEST_COMPONENT = 1e15  # the square of a larger one may not be a float32


@dataclass(frozen=True)
class Timings:
    """Seconds spent on turning the query into a vector, on waiting for the snapshot, and on searching it."""

    embedding_s: float
    waiting_s: float
    searching_s: float


@dataclass(frozen=True)
class Retrieval:
    """What a search found, and in which version. ``plan`` is there if it was asked for: one entry per segment."""

    hits: "list[Hit]"
    generation: "GenerationInfo"
    version: "ManifestVersion"
    timings: Timings
    plan: "list[SegmentPlan] | None" = None

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
) -> Retrieval:
    """Search the active generation of ``collection`` by the meaning of ``text``, or by a vector.

    Args:
        embedder_for: gives the embedder of a model name and dimensions; not called for a vector.
        vector: f32[dimensions of the generation], finite.
        k: 1 to ``max_k``, the setting of this server; fewer hits mean that there are no more.
        ef: how wide graphs are walked, up to `MAX_EF`; by default 64, or twice ``k`` where that is more.
        min_version: a version of the generation that the search must cover; ``timeout_s`` is how long to wait for it.
        at: the generation as it was at the version to search; by default the newest version that serves.
        now: seconds since 1970; what expired by then is not found.

    Raises:
        InvalidQuery: naming the part to change.
        EmbeddingError, NotFound, NotYet, Damaged, Unavailable: as they come.
    """
    _check_size(k=k, max_k=max_k, ef=ef)
    began = time.perf_counter()
    query = _query(embedder_for, collection.generation, text=text, vector=vector)
    embedded = time.perf_counter()
    generation = collection.generation
    taking = (
        snapshots.get(collection.tenant_id, generation.id, min_version=min_version, timeout_s=timeout_s)
        if at is None
        else snapshots.get_past(at, timeout_s=timeout_s)
    )
    with taking as snapshot:
        taken = time.perf_counter()
        hits, plan = snapshot.explained(query, k=k, filter=filter, ef=ef or max(LEAST_EF, 2 * k), now=now)
        version = snapshot.version
    timings = Timings(embedded - began, taken - embedded, time.perf_counter() - taken)
    return Retrieval(hits, generation, version, timings, plan if explain else None)


def _check_size(*, k: int, max_k: int, ef: int | None) -> None:
    if not 1 <= k <= max_k:
        raise InvalidQuery(f"k is {k}: ask for 1 to {max_k:,} hits", param="k")
    if ef is not None and not 1 <= ef <= MAX_EF:
        raise InvalidQuery(f"ef is {ef}: it can be 1 to {MAX_EF:,}", param="ef")


def _query(
    embedder_for: "Callable[[str, int], Embedder]",
    generation: "GenerationInfo",
    *,
    text: str | None,
    vector: ArrayLike | None,
) -> NDArray[np.float32]:
    if (text is None) == (vector is None):
        raise InvalidQuery("a search needs either a text or a vector, and not both", param="query")
    if text is None:
        return _checked(vector, generation)
    if not text.strip():
        raise InvalidQuery("the query is empty: ask something, or search by a vector", param="query")
    if len(text) > MAX_QUERY_CHARACTERS:
        raise InvalidQuery(
            f"the query has {len(text):,} characters: ask with at most {MAX_QUERY_CHARACTERS:,}", param="query"
        )
    return embedder_for(generation.model, generation.dimensions).embed_query(text)


def _checked(vector: ArrayLike | None, generation: "GenerationInfo") -> NDArray[np.float32]:
    try:
        with np.errstate(over="ignore"):  # becomes infinite, which is refused
            query = np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise InvalidQuery(f"the vector is not a list of numbers: {error}", param="vector") from error
    if query.shape != (generation.dimensions,):
        length = "x".join(map(str, query.shape)) or "no"
        raise InvalidQuery(
            f"the vector has {length} dimension{'' if length == '1' else 's'}, the collection has "
            f"{generation.dimensions} (model {generation.model!r})",
            param="vector",
        )
    if not (np.abs(query) <= LARGEST_COMPONENT).all():
        raise InvalidQuery(f"the vector has a component that is not within ±{LARGEST_COMPONENT:g}", param="vector")
    if generation.metric == "cosine" and not query.any():
        raise InvalidQuery("the vector is zero, which has no direction", param="vector")
    return query


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
