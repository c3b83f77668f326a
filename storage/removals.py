"""Accepts what takes documents, or some of their chunks, out of a collection: one ledger transaction per slice.

From the moment a function here returns, what it counted leaves in a later version of the index, whatever dies, and in
the order of all other versions of the document. Repeating it is harmless. Nothing is looked up in the index: a filter
is resolved to ids before (``versions.py``), so that a document which arrives later is not hit.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .acceptance import (
    Target,
    hold_collection,
    hold_job,
    open_writers_batch,
    raise_newest,
    record_job,
    supersede_queued,
)
from .catalog.engine import Catalog
from .catalog.sources import lock_sources
from .catalog.tables import GONE, OF_DOCUMENT, documents, versions
from .catalog.values import slices
from .ids import CollectionId, GenerationId, JobId, TenantId, VersionId, new_id

SAMPLE = 10
AT_ONCE = 500  # documents in one transaction, in which nobody else writes on SQLite


@dataclass(frozen=True)
class Removed:
    """What became of the documents that were named.

    ``deleted`` will leave; ``already_deleted`` had left, expired included, or were about to; ``not_found`` were never
    here, or so long ago that nothing is known of them any more.
    """

    job_id: JobId
    deleted: int
    already_deleted: int
    not_found: int


class LocatedChunk(NamedTuple):
    """A chunk as its place: ``text_version_id`` is the version that brought the text of its document."""

    document_id: str
    text_version_id: str
    ordinal: int


def remove_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    document_ids: Collection[str] = (),
    sources: Collection[str] = (),
    now: float,
    job_id: JobId | None = None,
) -> Removed:
    """Log the removal of these documents as one job; with ``job_id`` as a further part of that job.

    Each gets a version that holds nothing; versions that are still queued are superseded. More than `AT_ONCE` are
    logged in slices: after a failure in between, the same call again does what is left.

    Raises:
        NotFound: the tenant has no such collection, generation or job.
        Conflict: the job was cancelled, or belongs to another collection.
        Unavailable: the catalog did not answer.
    """
    target = Target(tenant, collection_id, generation_id, now)
    named, deleted, already = len({*document_ids}) + len({*sources}), 0, 0
    for chosen in _chosen(document_ids, sources):
        with catalog.write("remove") as connection:
            found = _hold_documents(connection, target, chosen, job_id=job_id)
            leaving = [row for row in found.rows if _leaves(row)]
            job_id = record_job(connection, target, job_id, opened=bool(leaving), unchanged=0)
            _log_deletes(connection, target, leaving, shard=found.shard, job_id=job_id)
        deleted += len(leaving)
        already += len(found.rows) - len(leaving)
    assert job_id is not None
    return Removed(job_id, deleted, already, max(0, named - deleted - already))


@dataclass(frozen=True)
class Survey:
    """What `remove_documents` would do now.

    ``sample``: (id, source) of a few documents that would leave; ``missing``: a few of the names that were not found.
    """

    deleted: int
    already_deleted: int
    not_found: int
    sample: list[tuple[str, str]]
    missing: list[str]


def survey_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    document_ids: Collection[str] = (),
    sources: Collection[str] = (),
) -> Survey:
    """Say what a removal of these documents would do. Changes nothing, and keeps nobody from changing it."""
    mine = (documents.c.collection_id == collection_id, documents.c.tenant_id == tenant)
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    wanted = sa.select(documents.c.id, documents.c.source, versions.c.state).join(versions, newest, isouter=True)
    found: list[Row[Any]] = []
    with catalog.read() as connection:
        for chosen in _chosen(document_ids, sources):
            found.extend(connection.execute(wanted.where(*mine, chosen)))
    leaving = sorted((row.source, row.id) for row in found if _leaves(row))
    missing = sorted([*{*document_ids} - {row.id for row in found}, *{*sources} - {row.source for row in found}])
    sample = [(document_id, source) for source, document_id in leaving[:SAMPLE]]
    return Survey(len(leaving), len(found) - len(leaving), len(missing), sample, missing[:SAMPLE])


def remove_chunks(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    chunks: Collection[LocatedChunk],
    now: float,
    job_id: JobId | None = None,
) -> JobId:
    """Log that these chunks leave, and nothing else of their documents, as one job; returns it.

    A version of the document that is indexed before or later keeps all its own chunks. Raises as `remove_documents`.
    """
    target = Target(tenant, collection_id, generation_id, now)
    ordinals: dict[tuple[str, str], set[int]] = defaultdict(set)
    for chunk in chunks:
        ordinals[chunk.document_id, chunk.text_version_id].add(chunk.ordinal)
    for some in slices(sorted(ordinals), AT_ONCE) if ordinals else [()]:
        chosen = documents.c.id.in_({document for document, _ in some}) if some else sa.false()
        with catalog.write("trim") as connection:
            found = _hold_documents(connection, target, chosen, job_id=job_id)
            here = {row.id for row in found.rows}
            trims = [
                (document, {"text_version": text_version, "ordinals": sorted(ordinals[document, text_version])})
                for document, text_version in some
                if document in here
            ]
            job_id = record_job(connection, target, job_id, opened=bool(trims), unchanged=0)
            _log_trims(connection, target, trims, shard=found.shard, job_id=job_id)
    assert job_id is not None
    return job_id


def _chosen(document_ids: Collection[str], sources: Collection[str]) -> list[sa.ColumnElement[bool]]:
    """Return one condition per slice, at least one."""
    conditions: list[sa.ColumnElement[bool]] = []
    for column, named in ((documents.c.id, document_ids), (documents.c.source, sources)):
        conditions += [column.in_(some) for some in slices(_storable(named), AT_ONCE)]
    return conditions or [sa.false()]


def _leaves(newest: Row[Any]) -> bool:
    """Say whether a delete has something to do for a document whose newest version is this; without any it has not."""
    return newest.state not in (None, "deleting", *GONE)


@dataclass(frozen=True)
class _Found:
    """Documents that exist, with the newest version of each, and the shard whose writer publishes them."""

    rows: Sequence[Row[Any]]
    shard: int


def _hold_documents(
    connection: Connection, target: Target, chosen: sa.ColumnElement[bool], *, job_id: JobId | None
) -> _Found:
    """Find the documents, and keep others from numbering versions of them until the commit."""
    shard = hold_collection(connection, target)
    if job_id is not None:
        hold_job(connection, target, job_id)
    mine = (documents.c.collection_id == target.collection_id, documents.c.tenant_id == target.tenant, chosen)
    sources = connection.scalars(sa.select(documents.c.source).where(*mine)).all()
    lock_sources(connection, target.collection_id, sources=sources)
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    told = ("state", "filename", "media_type", "title", "metadata", "event_time", "expires_at", "size_bytes")
    wanted = sa.select(documents.c.id, documents.c.highest, *(versions.c[name] for name in told))
    wanted = wanted.join(versions, newest, isouter=True).where(*mine).order_by(documents.c.id)
    return _Found(connection.execute(wanted).all(), shard)


def _log_deletes(
    connection: Connection, target: Target, leaving: Sequence[Row[Any]], *, shard: int, job_id: JobId
) -> None:
    if not leaving:
        return
    ids = [row.id for row in leaving]
    supersede_queued(connection, target, ids)
    batch_id = open_writers_batch(connection, target, shard=shard, document_count=len(ids))
    raise_newest(connection, target, ids)
    # What it said stays to be seen until the document is gone.
    told = ("filename", "media_type", "title", "metadata", "event_time", "expires_at", "size_bytes")
    rows = [
        {
            **_version(target, row.id, action="delete", state="deleting", job_id=job_id, batch_id=batch_id),
            **{name: getattr(row, name) for name in told},
            "number": row.highest + 1,
        }
        for row in leaving
    ]
    _insert(connection, rows)


def _log_trims(
    connection: Connection, target: Target, trims: Sequence[tuple[str, dict[str, Any]]], *, shard: int, job_id: JobId
) -> None:
    if not trims:
        return
    batch_id = open_writers_batch(connection, target, shard=shard, document_count=len(trims))
    rows = [
        {
            **_version(target, document, action="trim", state="trimming", job_id=job_id, batch_id=batch_id),
            "details": details,
        }
        for document, details in trims
    ]
    _insert(connection, rows)


def _version(
    target: Target, document_id: str, *, action: str, state: str, job_id: JobId, batch_id: str
) -> dict[str, Any]:
    """Return the row of a version that holds nothing."""
    return {
        "tenant_id": target.tenant,
        "collection_id": target.collection_id,
        "generation_id": target.generation_id,
        "document_id": document_id,
        "job_id": job_id,
        "batch_id": batch_id,
        "action": action,
        "number": None,
        "state": state,
        "filename": "",
        "metadata": {},
        "details": None,
        "content_hash": b"",
        "metadata_hash": b"",
        "pack": "",
        "pack_offset": 0,
        "size_bytes": 0,
        "created_at": target.now,
    }


def _insert(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    made = sorted(VersionId(new_id("ver")) for _ in rows)
    connection.execute(sa.insert(versions), [{"id": new, **row} for new, row in zip(made, rows, strict=True)])


def _storable(texts: Collection[str]) -> list[str]:
    """Return those that a document can be named by: a catalog refuses to look for the others."""
    return sorted(text for text in {*texts} if _is_storable(text))


def _is_storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
