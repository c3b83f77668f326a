"""Accepts new metadata, title or times of a document, as one ledger transaction. Its text is not touched.

What is indexed is written again under the new description by the writer: nothing is parsed, cut or embedded. Only a
document that is still on its way starts on it once more, from the bytes it was submitted with.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount, count_came
from ..catalog.completion import UNFINISHED
from ..catalog.engine import Catalog
from ..catalog.sources import lock_sources
from ..catalog.tables import GONE, documents, versions
from ..catalog.tenants import hold_tenant
from ..errors import Conflict, NotFound
from ..ids import CollectionId, DocumentId, GenerationId, JobId, TenantId, VersionId, new_id
from ..metadata import merge_patch
from .acceptance import Target, hold_collection, open_writers_batch, raise_newest, record_job, supersede_queued
from .submissions import SubmittedDocument, check_described, metadata_hash

ON_ITS_WAY = ("queued", "chunking", "embedding", "indexing")


@dataclass(frozen=True)
class DocumentChange:
    """What to change. ``values`` may have ``title``, ``event_time`` and ``expires_at``; None takes the value away.

    ``metadata`` replaces all of it; ``patch`` is a JSON merge patch of it (RFC 7396), applied after that.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] | None = None
    patch: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Updated:
    """``changed`` is False when the document says all that already; the job is then done."""

    job_id: JobId
    changed: bool
    number: int


def update_document(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    document_id: DocumentId,
    change: DocumentChange,
    now: float,
) -> Updated:
    """Log a new version of the document with the same text and another description, as a job of its own.

    It is applied to what the document said when this was accepted, and wins over an expiry that no version of the
    index has yet.

    Raises:
        NotFound: the tenant has no such collection or document, or it was deleted or has expired.
        Conflict: no version of the document holds text: it failed, or was cancelled.
        InvalidMetadata, InvalidName: names what cannot be kept.
    """
    target = Target(tenant, collection_id, generation_id, now)
    with catalog.write("update") as connection:
        hold_tenant(connection, tenant)  # the pack of a document that starts again must not be collected
        target = hold_collection(connection, target)
        document = _hold_document(connection, target, document_id)
        base = _base(connection, target, document)
        described = _described(base, document.source, change)
        check_described(described)
        if _says(base) == _says(described):
            job_id = record_job(connection, target, None, opened=False, unchanged=1)
            return Updated(job_id, changed=False, number=document.newest)
        job_id = record_job(connection, target, None, opened=True, unchanged=0)
        row = _version(target, base, described, job_id=job_id, number=document.highest + 1)
        if base.action == "put" and base.state in ON_ITS_WAY:
            supersede_queued(connection, target, [document_id])
            row |= {"action": "put", "state": "queued", "chunk_count": None, "priority": base.priority}
        else:
            chunks = base.chunk_count or 0
            row["batch_id"] = open_writers_batch(connection, target, document_count=1, chunk_count=chunks)
        raise_newest(connection, target, [document_id])
        connection.execute(sa.insert(versions).values(row))
        if row["state"] == "queued":
            count_came(connection, tenant, Amount(1, base.size_bytes))
    return Updated(job_id, changed=True, number=document.highest + 1)


def _hold_document(connection: Connection, target: Target, document_id: DocumentId) -> Row[Any]:
    mine = (documents.c.collection_id == target.collection_id, documents.c.tenant_id == target.tenant)
    wanted = sa.select(documents).where(*mine, documents.c.id == document_id)
    found = connection.execute(wanted).first()
    if found is not None:
        lock_sources(connection, target.collection_id, sources=[found.source])
        found = connection.execute(wanted).first()
    if found is None:
        raise NotFound(f"there is no document {document_id!r}")
    return found


def _base(connection: Connection, target: Target, document: Row[Any]) -> Row[Any]:
    """Return the newest version that is indexed or on its way: what the document is about to say."""
    mine = (versions.c.document_id == document.id, versions.c.collection_id == target.collection_id)
    alive = sa.select(versions).where(*mine, versions.c.action != "trim")
    alive = alive.where(versions.c.state.in_((*UNFINISHED, "indexed"))).order_by(versions.c.number.desc())
    base = connection.execute(alive.limit(1)).first()
    newest = connection.execute(sa.select(versions.c.state).where(*mine, versions.c.number == document.newest)).first()
    if newest is not None and newest.state == "expired":
        raise NotFound(f"document {document.id!r} has expired and is there no more: submit it again")
    if newest is None or newest.state in ("deleting", *GONE):
        raise NotFound(f"there is no document {document.id!r}")
    if base is None or base.action == "delete":
        raise Conflict(
            f"document {document.id!r} has no text to describe: its newest version is {newest.state}; submit it again"
        )
    return base


def _described(base: Row[Any], source: str, change: DocumentChange) -> SubmittedDocument:
    metadata = base.metadata if change.metadata is None else change.metadata
    described = SubmittedDocument(
        source=source,
        filename=base.filename,
        data=b"",
        media_type=base.media_type,
        title=base.title,
        metadata=merge_patch(metadata, change.patch or {}),
        event_time=base.event_time,
        expires_at=base.expires_at,
    )
    return replace(described, **change.values)


def _says(described: SubmittedDocument | Row[Any]) -> tuple[Any, ...]:
    return described.title, dict(described.metadata), described.event_time, described.expires_at


def _version(
    target: Target, base: Row[Any], described: SubmittedDocument, *, job_id: JobId, number: int
) -> dict[str, Any]:
    same = ("document_id", "filename", "media_type", "content_hash", "pack", "pack_offset", "size_bytes", "chunk_count")
    return {
        **{name: getattr(base, name) for name in same},
        "id": VersionId(new_id("ver")),
        "tenant_id": target.tenant,
        "collection_id": target.collection_id,
        "generation_id": target.generation_id,
        "job_id": job_id,
        "action": "update",
        "number": number,
        "state": "indexing",
        "title": described.title,
        "metadata": dict(described.metadata),
        "event_time": described.event_time,
        "expires_at": described.expires_at,
        "metadata_hash": metadata_hash(described),
        "created_at": target.now,
    }
