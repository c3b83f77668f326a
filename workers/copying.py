"""Copies documents from the generation that serves to the one that follows it: a slice at a time, as embed batches.

What fails at every attempt, a text that the model refuses or a document that cannot be cut anew, ends its slice: the
re-embedding stands still with the reason, and nothing of what is served is touched.
"""

import logging

import numpy as np
from numpy.typing import NDArray

from penstock.pipeline.embedding.billing import Billable
from penstock.pipeline.embedding.cached import embed_with_cache
from penstock.pipeline.embedding.embedder import Embedder
from penstock.pipeline.embedding.ordered import ToBeOrdered
from penstock.pipeline.errors import InputRejected
from penstock.storage import ledger
from penstock.storage.cache import EmbeddingCache
from penstock.storage.costs import Bill, ForBatch, Payee
from penstock.storage.errors import StorageError
from penstock.storage.failpoints import hit
from penstock.storage.figures import Figure
from penstock.storage.ids import JobId
from penstock.storage.reembedding.copying import read_chunks
from penstock.storage.reembedding.slices import Slice, Spared, fail_slice, finish_slice
from penstock.storage.segments.kept_vectors import read_kept_vectors
from penstock.storage.segments.manifests import read_manifest
from penstock.storage.segments.rows import Rows

from . import staging
from .claims import ids
from .components import Components
from .ordering import put_aside, with_orders

log = logging.getLogger(__name__)

_Known = tuple[NDArray[np.bool_], NDArray[np.float32]]


def copy_slice(components: Components, cache: EmbeddingCache, claim: ledger.Claim) -> None:
    """Embed the chunks of one slice for the target, and leave them for the writer. Raises as `embed_with_cache`."""
    asked = Slice.of(claim.details) if claim.details.get("slice") else Slice("")
    rows = staging.read_chunks(components.objects, claim.input) if claim.input else _read(components, asked)
    embedder = components.embedders.of(claim.generation.model, claim.generation.dimensions)
    known = _kept(components, claim, rows, known=asked.known or claim.input is not None)
    with _bill(components, claim, embedder) as bill:
        asked_of = embedder.billed_to(bill) if isinstance(embedder, Billable) else embedder
        asked_of = with_orders(components, claim, asked_of)
        try:
            vectors, spared = _vectors(asked_of, cache, claim, rows, known, bill, local=asked_of is embedder)
        except ToBeOrdered as error:
            put_aside(components, claim, rows, error)
            return
        except InputRejected as error:
            if error.index is None:
                raise
            _refuse(components, claim, rows, error)
            return
        hit("copy.embedded")
        _finish(components, claim, rows, vectors, spared, bill)
    log.info("Copied %d chunks to another generation.", len(rows), extra=ids(claim))


def _finish(
    components: Components,
    claim: ledger.Claim,
    rows: Rows,
    vectors: NDArray[np.float32],
    spared: Spared,
    bill: Bill,
) -> None:
    objects = components.objects
    tenant, batch_id, attempt = claim.tenant_id, claim.batch_id, claim.attempt
    chunks = claim.input or staging.write_chunks(objects, rows, tenant=tenant, batch_id=batch_id, attempt=attempt)
    staged = staging.write_vectors(objects, vectors, tenant=tenant, batch_id=batch_id, attempt=attempt)
    hit("copy.staged")
    now = components.clock()
    finish_slice(components.catalog, claim, chunks=chunks, vectors=staged, spared=spared, bill=bill, now=now)
    components.notices.work_ready()
    by_source = {"cache": spared.cache_hits, "index": spared.reused}
    by_source["model"] = len(rows) - spared.cache_hits - spared.reused
    components.figures.add(Figure("penstock_embedded_chunks", (one,), times=count) for one, count in by_source.items())


def _refuse(components: Components, claim: ledger.Claim, rows: Rows, error: InputRejected) -> None:
    """Give the slice up: the text would be refused at every attempt."""
    record = rows.documents[int(rows.document[error.index or 0])]
    log.info("A re-embedding stands still: a text was refused.", extra=ids(claim))
    told = f"document {record.source!r} ({record.document_id}) holds a text that the model refuses: {error}"
    fail_slice(components.catalog, claim, error=told, now=components.clock())
    components.notices.work_ready()


def _bill(components: Components, claim: ledger.Claim, embedder: Embedder) -> Bill:
    """Return the bill of this attempt. In the usage of its tenant a re-embedding is told as a job is."""
    generation, price = claim.generation, embedder.card.price_per_million_tokens
    payer = {JobId(str(claim.reembedding_id)): 1}
    payee = Payee(claim.tenant_id, generation.collection_id, generation.model, price, payer)
    return Bill(components.catalog, payee, ForBatch(claim.batch_id, claim.attempt), clock=components.clock)


def _read(components: Components, asked: Slice) -> Rows:
    manifest = read_manifest(components.objects, asked.manifest)
    rows = read_chunks(components.objects, manifest, document_ids=asked.documents)
    return rows if asked.rows is None else rows.take(np.arange(*asked.rows))


def _vectors(
    asked_of: Embedder,
    cache: EmbeddingCache,
    claim: ledger.Claim,
    rows: Rows,
    known: _Known,
    bill: Bill,
    *,
    local: bool,
) -> tuple[NDArray[np.float32], Spared]:
    """Return f32[len(rows), d], and what was not embedded for them."""
    kept, vectors = known
    chosen = np.flatnonzero(~kept)
    texts, tokens = [rows.text(index) for index in chosen.tolist()], rows.tokens[chosen].astype(np.int64)
    try:
        found, hits, asked = embed_with_cache(asked_of, cache, claim.tenant_id, texts, tokens=tokens)
    except InputRejected as error:
        if error.index is None:
            raise
        raise InputRejected(str(error), index=int(chosen[error.index])) from error
    vectors[chosen] = found
    given = int(tokens[list(asked)].sum())
    if asked and local:  # it runs here, and tells nobody of its calls
        bill.paid(given)
    bill.saved(hits, int(tokens.sum()) - given)
    return vectors, Spared(cache_hits=hits, reused=int(kept.sum()))


def _kept(components: Components, claim: ledger.Claim, rows: Rows, *, known: bool) -> _Known:
    """Return which chunks the target has already under other names, and their vectors."""
    objects, generation = components.objects, claim.generation
    if known and generation.manifest is not None:
        try:
            manifest = read_manifest(objects, generation.manifest)
            return read_kept_vectors(objects, manifest, rows, document_ids=set(rows.document_ids))
        except (StorageError, OSError) as error:  # merged away and collected meanwhile: that costs an embedding
            log.info("Chunks that did not change are embedded again: %s", error, extra=ids(claim))
    return np.zeros(len(rows), np.bool_), np.zeros((len(rows), generation.dimensions), np.float32)
