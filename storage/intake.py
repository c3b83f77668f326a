"""Accepts submitted documents: their bytes into one pack, their versions into the ledger, in one transaction.

From the moment accept() returns, a document is indexed or visibly failed, whatever dies. Nothing is parsed here.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .catalog.completion import finish_jobs
from .catalog.engine import Catalog
from .catalog.sources import KnownDocument, hold_sources, read_sources
from .catalog.tables import collections, generations, jobs, versions
from .catalog.tables import documents as documents_table
from .catalog.tenants import hold_tenant
from .catalog.values import slices
from .errors import Conflict, NotFound, Unavailable
from .ids import CollectionId, DocumentId, GenerationId, JobId, TenantId, VersionId, new_id
from .objects import ObjectStore
from .submissions import Candidate, Pack, SubmittedDocument, checked, write_pack

__all__ = ["Accepted", "AcceptedDocument", "SubmittedDocument", "accept"]


@dataclass(frozen=True)
class AcceptedDocument:
    """``version_id`` is None when the document was here already, unchanged; ``number`` is then the kept version's."""

    source: str
    document_id: DocumentId
    version_id: VersionId | None
    number: int


@dataclass(frozen=True)
class Accepted:
    """What became of a submission. ``superseded`` counts older versions that were still queued and never will run."""

    job_id: JobId
    accepted: int
    unchanged: int
    superseded: int
    documents: tuple[AcceptedDocument, ...]

    @property
    def replaced(self) -> int:
        """How many of the accepted are new versions of documents that were here."""
        return sum(one.version_id is not None and one.number > 1 for one in self.documents)


@dataclass(frozen=True)
class _Target:
    tenant: TenantId
    collection_id: CollectionId
    generation_id: GenerationId
    now: float


class _BytesLeftOut(Exception):
    """The pack lacks bytes: what looked unchanged was changed meanwhile, or the pack was collected."""


def accept(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    documents: Sequence[SubmittedDocument],
    now: float,
    job_id: JobId | None = None,
) -> Accepted:
    """Commit the submission; with ``job_id`` as a further part of that job. Submitting twice is harmless.

    A document whose newest version is in progress or indexed with the same bytes, title, metadata and times makes no
    new version. An older version that is still queued is superseded.

    Raises:
        InvalidName: a source is empty, too long or given twice. InvalidMetadata: names the field.
        NotFound: the tenant has no such collection, generation or job.
        Conflict: the job was cancelled, or belongs to another collection.
        Unavailable: the catalog did not answer; nothing was accepted.
    """
    candidates = checked(documents)
    target = _Target(tenant, collection_id, generation_id, now)
    with catalog.read() as connection:
        known = read_sources(connection, collection_id, sources=[candidate.source for candidate in candidates])
    # What looks unchanged need not be written; the transaction decides again.
    unchanged = {one.source for one in candidates if one.source in known and _holds(known[one.source], one)}
    for left_out in (unchanged, set[str]()):
        pack = write_pack(objects, tenant, candidates, left_out=left_out)
        with suppress(_BytesLeftOut):
            return _record(catalog, objects, target, candidates, pack=pack, job_id=job_id)
    raise Unavailable("the bytes of this submission were collected twice while it was being recorded. Try again.")


def _record(
    catalog: Catalog,
    objects: ObjectStore,
    target: _Target,
    candidates: Sequence[Candidate],
    *,
    pack: Pack,
    job_id: JobId | None,
) -> Accepted:
    sources = [candidate.source for candidate in candidates]
    with catalog.write("accept") as connection:
        hold_tenant(connection, target.tenant)  # first of all, and the only lock that the collector takes
        _hold_collection(connection, target)
        if job_id is not None:
            _hold_job(connection, target, job_id)
        known = hold_sources(connection, target.collection_id, tenant=target.tenant, sources=sources, now=target.now)
        changed = [candidate for candidate in candidates if not _holds(known[candidate.source], candidate)]
        if any(candidate.source not in pack.offsets for candidate in changed):
            raise _BytesLeftOut
        # The collector cannot come any more (it waits for the tenant's row): what is here now stays.
        if changed and not objects.exists(pack.name or ""):
            raise _BytesLeftOut
        unchanged = len(candidates) - len(changed)
        job = _record_job(connection, target, job_id, opened=bool(changed), unchanged=unchanged)
        queued = [known[one.source].id for one in changed if known[one.source].state == "queued"]
        superseded = _supersede_queued(connection, target, queued)
        made = _insert_versions(connection, target, changed, known=known, pack=pack, job_id=job)
    return Accepted(job, len(changed), unchanged, superseded, _accepted(candidates, known, made))


def _holds(known: KnownDocument, candidate: Candidate) -> bool:
    return known.holds(candidate.content_hash, candidate.metadata_hash)


def _hold_collection(connection: Connection, target: _Target) -> None:
    """Check the names against each other, and keep the collection from being deleted until the commit."""
    owned = sa.select(collections.c.id).where(collections.c.id == target.collection_id)
    owned = owned.where(collections.c.tenant_id == target.tenant).with_for_update(read=True, key_share=True)
    if connection.scalar(owned) is None:
        raise NotFound(f"there is no collection {target.collection_id!r}")
    generation = sa.select(generations.c.id).where(generations.c.id == target.generation_id)
    if connection.scalar(generation.where(generations.c.collection_id == target.collection_id)) is None:
        raise NotFound(f"the collection has no generation {target.generation_id!r}")


def _hold_job(connection: Connection, target: _Target, job_id: JobId) -> None:
    wanted = sa.select(jobs.c.state, jobs.c.collection_id).where(jobs.c.id == job_id, jobs.c.tenant_id == target.tenant)
    row = connection.execute(wanted.with_for_update()).first()
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    if row.collection_id != target.collection_id:
        raise Conflict(f"job {job_id} belongs to another collection: submit without a job to begin a new one")
    if row.state == "cancelled":
        raise Conflict(f"job {job_id} was cancelled: submit without a job to begin a new one")


def _record_job(
    connection: Connection, target: _Target, job_id: JobId | None, *, opened: bool, unchanged: int
) -> JobId:
    state = {"state": "running", "finished_at": None} if opened else {"state": "done", "finished_at": target.now}
    if job_id is not None:
        values: dict[str, Any] = {"unchanged": jobs.c.unchanged + unchanged, **(state if opened else {})}
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(values))
        return job_id
    made = JobId(new_id("job"))
    owner = {"tenant_id": target.tenant, "collection_id": target.collection_id}
    row = {"id": made, **owner, **state, "unchanged": unchanged, "created_at": target.now}
    connection.execute(sa.insert(jobs).values(row))
    return made


def _supersede_queued(connection: Connection, target: _Target, document_ids: Sequence[str]) -> int:
    mine, now = versions.c.collection_id == target.collection_id, target.now
    affected: dict[str, str] = {}
    for some in slices(document_ids):
        queued = sa.select(versions.c.id, versions.c.job_id).where(mine, versions.c.document_id.in_(some))
        queued = queued.where(versions.c.state == "queued").order_by(versions.c.id).with_for_update()
        affected |= {row.id: row.job_id for row in connection.execute(queued)}
    for some in slices(list(affected)):
        ended = sa.update(versions).where(versions.c.id.in_(some))
        connection.execute(ended.values(state="superseded", finished_at=now))
    if affected:
        finish_jobs(connection, now=now, job_ids=set(affected.values()))
    return len(affected)


def _insert_versions(
    connection: Connection,
    target: _Target,
    changed: Sequence[Candidate],
    *,
    known: Mapping[str, KnownDocument],
    pack: Pack,
    job_id: JobId,
) -> dict[str, VersionId]:
    """Insert one version per changed document, their ids in the order of submission. Returns the ids by source."""
    shared = {
        "tenant_id": target.tenant,
        "collection_id": target.collection_id,
        "generation_id": target.generation_id,
        "job_id": job_id,
        "state": "queued",
        "pack": pack.name,
        "created_at": target.now,
    }
    made = sorted(VersionId(new_id("ver")) for _ in changed)
    for some in slices([known[one.source].id for one in changed]):
        mine = (documents_table.c.collection_id == target.collection_id, documents_table.c.id.in_(some))
        connection.execute(sa.update(documents_table).where(*mine).values(newest=documents_table.c.newest + 1))
    rows = [
        {"id": new, **shared, **_version(one, known[one.source]), "pack_offset": pack.offsets[one.source]}
        for new, one in zip(made, changed, strict=True)
    ]
    if rows:
        connection.execute(sa.insert(versions), rows)
    return {one.source: new for new, one in zip(made, changed, strict=True)}


def _version(candidate: Candidate, known: KnownDocument) -> dict[str, Any]:
    submitted = candidate.submitted
    return {
        "document_id": known.id,
        "number": known.number + 1,
        "filename": submitted.filename,
        "media_type": submitted.media_type,
        "title": submitted.title,
        "metadata": dict(submitted.metadata),
        "event_time": submitted.event_time,
        "expires_at": submitted.expires_at,
        "content_hash": candidate.content_hash,
        "metadata_hash": candidate.metadata_hash,
        "size_bytes": len(submitted.data),
    }


def _accepted(
    candidates: Collection[Candidate], known: Mapping[str, KnownDocument], made: Mapping[str, VersionId]
) -> tuple[AcceptedDocument, ...]:
    return tuple(
        AcceptedDocument(
            source=one.source,
            document_id=known[one.source].id,
            version_id=made.get(one.source),
            number=known[one.source].number + (one.source in made),
        )
        for one in candidates
    )
