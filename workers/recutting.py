"""Cuts documents anew from what was submitted, for a generation that cuts otherwise than the one that serves.

A text of which chunks were deleted does not get them back: what touches anything but the chunks that are left is left
out. What a document says, its version, metadata and times, is what is served of it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import numpy as np

from penstock.pipeline.chunking import Chunk
from penstock.pipeline.parsing import ParseLimits
from penstock.storage import ledger
from penstock.storage.errors import Damaged, NotFound
from penstock.storage.ids import BatchId, CollectionId, DocumentId, JobId, VersionId, new_id
from penstock.storage.objects.store import ObjectStore
from penstock.storage.reembedding.copying import read_chunks
from penstock.storage.reembedding.slices import Cut, Slice
from penstock.storage.segments.manifests import read_manifest
from penstock.storage.segments.records import DocumentRecord, Documents
from penstock.storage.segments.rows import Rows

from . import staging
from .documents import ChunkedDocument, Chunking, chunk_document, failure_of, rows_of
from .packing import Part, pack
from .submitted import SubmittedBytes


class CannotCut(Exception):
    """A document of the slice cannot be cut anew; the message says which and why."""


@dataclass(frozen=True)
class Cutting:
    """How documents are cut here. ``alarmed``: gives a block the time that one document may take."""

    objects: ObjectStore
    chunking: Chunking
    limits: ParseLimits
    alarmed: Callable[[], AbstractContextManager[None]]


def recut_slice(cutting: Cutting, claim: ledger.Claim) -> list[Cut]:
    """Cut the documents of one slice and stage their chunks, as parts to be embedded and published together.

    Raises:
        CannotCut: a document cannot be cut. Damaged: a segment or a pack is not what was written.
    """
    asked = Slice.of(claim.details)
    served = read_chunks(cutting.objects, read_manifest(cutting.objects, asked.manifest), document_ids=asked.documents)
    versions = [_as_submitted(record, claim) for record in served.documents]
    submitted = SubmittedBytes(cutting.objects, versions)
    done, records = [], []
    for position, (record, version) in enumerate(zip(served.documents, versions, strict=True)):
        document = _cut(cutting, version, submitted, served.take(served.document == position))
        if document.chunks:
            done.append(document)
            records.append(record)
    return [
        _staged(cutting, claim, part, done, records)
        for group in pack([len(document.chunks) for document in done], limit=cutting.chunking.part_chunks)
        for part in group
    ]


def _cut(cutting: Cutting, version: ledger.VersionRow, submitted: SubmittedBytes, served: Rows) -> ChunkedDocument:
    try:
        data = submitted.read(version)
        with cutting.alarmed():
            document = chunk_document(version, data, chunking=cutting.chunking, limits=cutting.limits)
    except Exception as error:
        failure = failure_of(version, error, limits=cutting.limits)
        if failure is None or isinstance(error, NotFound | Damaged):
            raise
        raise CannotCut(f"document {version.source!r} ({version.document_id}): {failure.error}") from error
    return replace(document, chunks=_still_wanted(document, served))


def _as_submitted(record: DocumentRecord, claim: ledger.Claim) -> ledger.VersionRow:
    original = record.original
    if original is None:
        raise CannotCut(f"document {record.source!r} ({record.document_id}) was stored without what was submitted")
    return ledger.VersionRow(
        id=VersionId(record.version_id),
        collection_id=CollectionId(claim.generation.collection_id),
        document_id=DocumentId(record.document_id),
        job_id=JobId(""),
        batch_id=claim.batch_id,
        action="put",
        number=record.number,
        source=record.source,
        filename=original["filename"],
        media_type=original["media_type"],
        title=record.title,
        metadata=record.metadata,
        event_time=record.event_time,
        expires_at=record.expires_at,
        pack=original["pack"],
        pack_offset=original["pack_offset"],
        size_bytes=original["size_bytes"],
        content_hash=bytes.fromhex(original["content_hash"]),
        metadata_hash=bytes.fromhex(original["metadata_hash"]),
        created_at=record.ingested_at,
    )


def _still_wanted(document: ChunkedDocument, served: Rows) -> Sequence[Chunk]:
    """Return the chunks without those that reach into text of which the chunks were deleted."""
    ordinals = np.sort(served.ordinal)
    if int(ordinals[0]) == 0 and int(ordinals[-1]) == len(ordinals) - 1 and not _ends_early(document, served):
        return document.chunks
    spans = sorted(zip(served.start.tolist(), served.end.tolist(), strict=True))
    return [chunk for chunk in document.chunks if _is_covered(document.text, chunk, spans)]


def _ends_early(document: ChunkedDocument, served: Rows) -> bool:
    """Say whether the last chunks were deleted: the others are numbered without a gap then."""
    return int(served.end.max()) < max(chunk.end for chunk in document.chunks)


def _is_covered(text: str, chunk: Chunk, spans: Sequence[tuple[int, int]]) -> bool:
    """Say whether the spans, in order, hold all of a chunk but white space."""
    start = chunk.start
    for first, last in spans:
        if first > start and text[start:first].strip():
            return False
        start = max(start, last)
        if start >= chunk.end:
            return True
    return False


def _staged(
    cutting: Cutting,
    claim: ledger.Claim,
    part: Part,
    done: Sequence[ChunkedDocument],
    records: Sequence[DocumentRecord],
) -> Cut:
    batch_id = BatchId(new_id("batch"))  # another one in every attempt
    rows = replace(rows_of(done, part), documents=Documents.of([records[piece.document] for piece in part]))
    name = staging.write_chunks(cutting.objects, rows, tenant=claim.tenant_id, batch_id=batch_id)
    return Cut(batch_id, name, chunk_count=len(rows), size_bytes=int(rows.text_offsets[-1]))
