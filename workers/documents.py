"""One document version: from its bytes to chunks, and from chunks to rows. It does no I/O and knows no batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstock.pipeline.chunking import Chunk, Fit, ResolvedChunking, chunk
from penstock.pipeline.errors import ParseError
from penstock.pipeline.parsing import ParseLimits, parse
from penstock.storage.errors import Damaged, NotFound
from penstock.storage.failpoints import hit
from penstock.storage.ledger import FailedDocument, VersionRow
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows, chunk_identity

from .packing import Part


@dataclass(frozen=True)
class Chunking:
    """How the documents of one generation are cut, and how many chunks make an embed batch."""

    part_chunks: int
    config: ResolvedChunking
    fit: Fit | None

    def described(self) -> dict[str, Any]:
        return self.config.model_dump()


@dataclass(frozen=True)
class ChunkedDocument:
    """A document version that was read: its text and where its chunks are."""

    version: VersionRow
    text: str
    title: str | None
    media_type: str
    chunks: Sequence[Chunk]
    chunking: dict[str, Any]


def chunk_document(version: VersionRow, data: bytes, *, chunking: Chunking, limits: ParseLimits) -> ChunkedDocument:
    """Parse and cut one document.

    Raises:
        ParseError: it cannot be read, or has no text.
        TimeoutError: the caller's alarm rang.
    """
    hit(f"chunk.parse.{version.source}")
    parsed = parse(data, filename=version.filename, media_type=version.media_type, limits=limits)
    chunks = chunk(parsed.text, chunking.config, spans=parsed.spans, fit=chunking.fit)
    if not chunks:
        raise ParseError("no_text", "It holds no text to search: nothing was indexed.")
    return ChunkedDocument(version, parsed.text, parsed.title, parsed.media_type, chunks, chunking.described())


def failure_of(version: VersionRow, error: Exception, *, limits: ParseLimits) -> FailedDocument | None:
    """Return why the document failed, or None when the error is not the document's."""
    match error:
        case ParseError():
            return FailedDocument(version.id, error.code, error.message)
        case TimeoutError():
            told = (
                f"Reading it took longer than {limits.timeout_s:g} s: split it into smaller files,"
                " or raise the setting limits.parse_timeout_s."
            )
            return FailedDocument(version.id, "timeout", told)
        case MemoryError():
            told = "Reading it takes more memory than workers.chunk_memory_bytes: split it, or raise that setting."
            return FailedDocument(version.id, "too_large", told)
        case NotFound():
            return FailedDocument(version.id, "bytes_lost", "Its submitted bytes are gone: submit it again.")
        case Damaged():
            return FailedDocument(version.id, "bytes_damaged", "The stored bytes are damaged: submit it again.")
        case _:
            return None


def rows_of(documents: Sequence[ChunkedDocument], part: Part) -> Rows:
    """Return the chunks of one part as rows, in order."""
    pieces = [(number, documents[piece.document], piece) for number, piece in enumerate(part)]
    cut = [
        (number, document, ordinal, document.chunks[ordinal])
        for number, document, piece in pieces
        for ordinal in range(piece.start, piece.stop)
    ]
    texts = [document.text[one.start : one.end] for _, document, _, one in cut]
    return Rows.build(
        [_record(document) for _, document, _ in pieces],
        document=[number for number, _, _, _ in cut],
        ordinal=[ordinal for _, _, ordinal, _ in cut],
        start=[one.start for _, _, _, one in cut],
        end=[one.end for _, _, _, one in cut],
        page=[-1 if one.page is None else one.page for _, _, _, one in cut],
        tokens=[one.tokens for _, _, _, one in cut],
        identity=[
            chunk_identity(text, chunking=document.chunking)
            for text, (_, document, _, _) in zip(texts, cut, strict=True)
        ],
        texts=texts,
        headings=[one.heading for _, _, _, one in cut],
    )


def _record(document: ChunkedDocument) -> DocumentRecord:
    version = document.version
    return DocumentRecord(
        document_id=version.document_id,
        version_id=version.id,
        number=version.number,
        source=version.source,
        title=version.title or document.title,
        metadata=dict(version.metadata),
        event_time=version.event_time,
        expires_at=version.expires_at,
        ingested_at=version.created_at,
        media_type=document.media_type,
        original={
            "filename": version.filename,
            "media_type": version.media_type,
            "pack": version.pack,
            "pack_offset": version.pack_offset,
            "size_bytes": version.size_bytes,
            "content_hash": version.content_hash.hex(),
            "metadata_hash": version.metadata_hash.hex(),
        },
    )
