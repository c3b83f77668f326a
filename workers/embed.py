"""The embed role: from staged chunks to staged vectors. One refused text fails its document, not its batch.

Chunks that the version of their document that is served has too keep the vectors they have there. Not the chunk role
decides that: until the vectors are needed, that version may be replaced, or its segment merged away and collected.
"""

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.pipeline.embedding import Embedder
from penstock.pipeline.embedding.billing import Billable
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.pipeline.embedding.ordered import ToBeOrdered
from penstock.pipeline.errors import InputRejected
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.costs import Bill, ForBatch, Payee
from penstock.storage.errors import StorageError
from penstock.storage.failpoints import hit
from penstock.storage.figures import Figure
from penstock.storage.ids import BatchId, JobId, VersionId
from penstock.storage.segments.kept_vectors import read_kept_vectors
from penstock.storage.segments.manifests import read_manifest
from penstock.storage.segments.rows import Rows

from . import routes, staging
from .claims import Claims, ids
from .components import Components
from .copying import copy_slice
from .liveness import Liveness
from .ordering import put_aside, with_orders

log = logging.getLogger(__name__)

# A thread lets go of the interpreter at each statement of SQL and each answer of the cache, and would then wait 5 ms
# for one that computes: a small batch beside a large one mostly for that.
SWITCH_S = 0.0005


_Known = tuple[NDArray[np.bool_], NDArray[np.float32]]  # which chunks the index has, and their vectors


class Embedding:
    """The role's process: `Role` of ``roles.py``. Its tasks run in threads."""

    def __init__(self, settings: Settings, *, liveness: Liveness) -> None:
        self._settings = settings
        self._liveness = liveness

    def open(self) -> None:
        sys.setswitchinterval(SWITCH_S)
        self._components = Components.open(self._settings, role="embed")
        self._cache = wiring.open_cache(self._settings)
        self._claims = Claims(self._components, liveness=self._liveness)

    def close(self) -> None:
        self._claims.close()
        self._components.close()

    def tasks(self) -> Mapping[str, Callable[..., Any]]:
        return {routes.EMBED: self.embed}

    def embed(self, batch_id: str) -> None:
        """Bring one embed batch to its end, or hand it back."""
        began = time.perf_counter()
        with self._claims.working(BatchId(batch_id)) as claim:
            if claim is None:
                return
            if self._liveness.stopping:
                self._claims.hand_back(claim)
                return
            if claim.reembedding_id is not None:
                copy_slice(self._components, self._cache, claim)
                self._claims.outages.over(claim.generation.model)
                return
            for version in claim.versions:
                hit(f"embed.document.{version.source}")
            rows = staging.read_chunks(self._components.objects, claim.input or "")
            try:
                made = self._embed(claim, rows)
            except ToBeOrdered as error:
                put_aside(self._components, claim, rows, error)
                return
            self._claims.outages.over(claim.generation.model)
            took_ms = (time.perf_counter() - began) * 1e3
            told = (made.chunks, took_ms, made.reused.total(), made.hits)
            log.info("Embedded %d chunks in %.0f ms, %d unchanged, %d cached.", *told, extra=ids(claim))

    def _embed(self, claim: ledger.Claim, rows: Rows) -> "_Made":
        embedder = self._components.embedders.of(claim.generation.model, claim.generation.dimensions)
        kept = self._kept(claim, rows)
        with self._bill(claim, embedder, _by_job(claim, rows, ~kept[0])) as bill:
            vectors, made = self._vectors(claim, rows, kept, embedder, bill)
            self._finish(claim, vectors, made, bill)
        return made

    def _finish(self, claim: ledger.Claim, vectors: NDArray[np.float32], made: "_Made", bill: Bill) -> None:
        components = self._components
        hit("embed.embedded")
        output = staging.write_vectors(
            components.objects, vectors, tenant=claim.tenant_id, batch_id=claim.batch_id, attempt=claim.attempt
        )
        now = components.clock()
        ledger.finish_embedding(
            components.catalog,
            claim,
            output=output,
            cache_hits=made.hits,
            bill=bill,
            reused=made.reused,
            now=now,
        )
        components.notices.work_ready()
        kept = made.reused.total()
        by_source = {"model": made.chunks - made.hits - kept, "cache": made.hits, "index": kept}
        components.figures.add(
            Figure("penstock_embedded_chunks", (source,), times=count) for source, count in by_source.items()
        )

    def _bill(self, claim: ledger.Claim, embedder: Embedder, weights: Mapping[JobId, int]) -> Bill:
        """Return the bill of this attempt, which the jobs share by the chunks that are not here yet."""
        generation, price = claim.generation, embedder.card.price_per_million_tokens
        payee = Payee(claim.tenant_id, generation.collection_id, generation.model, price, weights)
        held = ForBatch(claim.batch_id, claim.attempt)
        return Bill(self._components.catalog, payee, held, clock=self._components.clock)

    def _vectors(
        self, claim: ledger.Claim, rows: Rows, known: _Known, embedder: Embedder, bill: Bill
    ) -> "tuple[NDArray[np.float32], _Made]":
        """Return f32[len(rows), d], with zeros for chunks that nobody wants any more, and where they came from."""
        kept, vectors = known
        asked_of = embedder.billed_to(bill) if isinstance(embedder, Billable) else embedder
        asked_of = with_orders(self._components, claim, asked_of)
        wanted: set[str] = {version.id for version in claim.versions}
        while True:
            alive = staging.wanted_rows(rows, wanted)
            chosen = np.flatnonzero(alive & ~kept).tolist()
            texts = [rows.text(index) for index in chosen]
            try:
                found, hits, asked = embed_with_cache(
                    asked_of, self._cache, claim.tenant_id, texts, tokens=rows.tokens[chosen].astype(np.int64)
                )
            except InputRejected as error:
                if error.index is None and len(wanted) > 1:
                    raise  # whichever it is: after some attempts each document is alone
                wanted.discard(self._refuse(claim, rows, chosen[error.index or 0], error))
                continue
            vectors[chosen] = found
            tokens = int(rows.tokens[[chosen[index] for index in asked]].sum())
            if asked and asked_of is embedder:  # it runs here, and tells nobody of its calls
                bill.paid(tokens)
            bill.saved(hits, int(rows.tokens[chosen].sum()) - tokens)
            return vectors, _Made(int(alive.sum()), hits, reused=_by_job(claim, rows, alive & kept))

    def _kept(self, claim: ledger.Claim, rows: Rows) -> _Known:
        """Return which chunks the version that is served has too, and their vectors: those need not be embedded.

        Whatever stands in the way of reading them costs an embedding, never a document.
        """
        objects, generation = self._components.objects, claim.generation
        older = {version.document_id for version in claim.versions if version.number > 1}
        if older and generation.manifest is not None:
            try:
                return read_kept_vectors(objects, read_manifest(objects, generation.manifest), rows, document_ids=older)
            except (StorageError, OSError) as error:  # merged away and collected meanwhile, or damaged
                log.info("Chunks that did not change are embedded again: %s", error, extra=ids(claim))
        return np.zeros(len(rows), np.bool_), np.zeros((len(rows), generation.dimensions), np.float32)

    def _refuse(self, claim: ledger.Claim, rows: Rows, index: int, error: InputRejected) -> str:
        """Fail the document of one row and return its version's id. The last of its batch: the claim is then lost."""
        components = self._components
        version = rows.documents[int(rows.document[index])].version_id
        failure = ledger.FailedDocument(VersionId(version), "input_rejected", str(error))
        now = components.clock()
        ledger.fail_versions(components.catalog, failures=[failure], stage="embed", now=now, tried=claim.tried)
        mine = next(one for one in claim.versions if one.id == version)
        components.figures.add([Figure("penstock_failed_documents", ("embed",))])
        log.info("A document fails: %s.", failure.code, extra=ids(claim, version=mine))
        return version


@dataclass(frozen=True)
class _Made:
    """What embedding brought: ``hits`` of its chunks came from the cache, ``reused`` (by job) from the index."""

    chunks: int
    hits: int
    reused: Counter[JobId]


def _by_job(claim: ledger.Claim, rows: Rows, mask: NDArray[np.bool_]) -> Counter[JobId]:
    """Return how many of the rows in ``mask`` belong to each job."""
    jobs: dict[str, JobId] = {version.id: version.job_id for version in claim.versions}
    counts = np.bincount(rows.document[mask], minlength=len(rows.documents)).tolist()
    found: Counter[JobId] = Counter()
    for record, count in zip(rows.documents, counts, strict=True):
        if count and record.version_id in jobs:
            found[jobs[record.version_id]] += count
    return found
