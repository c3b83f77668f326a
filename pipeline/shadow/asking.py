"""One generation is asked questions as searches ask it: with its own model, prefixes and dimensions. Keeps no texts."""

from collections.abc import Callable, Container, Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.generations import GenerationInfo
from penstock.storage.errors import FilterMismatch
from penstock.storage.search.hits import Hit
from penstock.storage.search.snapshots import SnapshotCache
from penstock.storage.segments.fields import Filter

from ..embedding.embedder import Embedder
from ..errors import InputRejected, InvalidQuery
from ..retrieval import Timings, retrieve
from .agreement import percentile
from .report import K, Latency

OPENING_S = 60.0
DEPTH = 50  # passages looked at where documents are compared, of which one has several

Ranked = list[tuple[Hashable, float]]


class Found(NamedTuple):
    hits: list[Hit]
    timings: Timings


@dataclass
class Asked:
    """A generation and how it answered so far. ``at``: what expired by then is not found.

    ``version`` and ``chunks`` are known once it is warm.
    """

    generation: GenerationInfo
    snapshots: SnapshotCache
    embedder_for: Callable[[str, int], Embedder]
    ef: int
    at: float
    timings: list[Timings] = field(default_factory=list)
    qualities: list[float] = field(default_factory=list)
    unanswered: int = 0
    because: str | None = None
    version: int = 0
    chunks: int = 0

    def search(self, text: str, *, filter: Filter | None, k: int) -> Found | str:  # noqa: A002
        """Return the hits and how long it took, or why this generation cannot answer.

        Raises:
            EmbeddingError, StorageError: it cannot answer anything now.
        """
        generation = self.generation
        collection = CollectionInfo(generation.collection_id, generation.tenant_id, "", 0.0, generation, {})
        try:
            found = retrieve(
                self.embedder_for,
                self.snapshots,
                collection,
                text=text,
                k=k,
                filter=filter,
                ef=max(self.ef, 2 * k),
                now=self.at,
            )
        except (InputRejected, InvalidQuery, FilterMismatch) as error:
            return str(error)
        return Found(found.hits, found.timings)

    def warm(self) -> None:
        """Load the model, and open and search the snapshot: no question is charged with that. Raises as `search`."""
        generation = self.generation
        query = self.embedder_for(generation.model, generation.dimensions).embed_query("warm")
        with self.snapshots.get(generation.tenant_id, generation.id, timeout_s=OPENING_S) as snapshot:
            self.version, self.chunks = snapshot.version, snapshot.chunk_count
            snapshot.search(query, k=K, ef=self.ef, now=self.at)  # compiles what was not, in a new process

    def missed(self, why: str) -> None:
        """Count a question that only the other generation could answer."""
        self.unanswered += 1
        self.because = self.because or why

    def latency(self) -> Latency:
        whole = [1e3 * (one.embedding_s + one.waiting_s + one.searching_s) for one in self.timings]
        embedding = [1e3 * one.embedding_s for one in self.timings]
        told = (percentile(whole, 0.5), percentile(whole, 0.95), percentile(embedding, 0.5)) if whole else (None,) * 3
        return Latency(*(None if one is None else round(one, 3) for one in told))


def passages(hits: list[Hit]) -> Ranked:
    """Return hits as places in documents, which both generations name alike where they cut in the same way."""
    return [((hit.document.document_id, hit.start, hit.end), hit.score) for hit in hits]


def documents(hits: list[Hit]) -> Ranked:
    """Return each document once, where its best passage is."""
    best: dict[Hashable, float] = {}
    for hit in hits:
        best.setdefault(hit.document.document_id, hit.score)
    return list(best.items())


def named(hits: list[Hit], judged: Container[Hashable]) -> list[Hashable]:
    """Return each document once, where its best passage is: by its source or its id, whichever was judged."""
    found = dict.fromkeys((hit.document.source, hit.document.document_id) for hit in hits)
    return [document_id if document_id in judged else source for source, document_id in found]
