"""What every acceptance does in its transaction: check the names, hold what is below them, open the job.

Locks are taken in one order: tenant, collection, job, documents; versions and batches are only added after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount, count_left
from ..catalog.batches import ready_batch
from ..catalog.budgets import wake_for_money
from ..catalog.completion import finish_jobs
from ..catalog.outbox import ENDED, tell
from ..catalog.sources import lock_sources
from ..catalog.tables import OF_DOCUMENT, batches, collections, documents, generations, jobs, versions
from ..catalog.values import slices
from ..catalog.webhook_secrets import require_secret
from ..errors import Conflict, NotFound
from ..ids import BatchId, CollectionId, GenerationId, JobId, TenantId, VersionId, new_id


@dataclass(frozen=True)
class Target:
    """Where something is accepted, and when. ``webhook_url``: who is told when its job ends; ``budget_usd``: of it.

    ``generation_id``: the active one as its caller knew it; `hold_collection` says which one is. ``shard``: whose
    writer publishes it.
    """

    tenant: TenantId
    collection_id: CollectionId
    generation_id: GenerationId
    now: float
    webhook_url: str | None = None
    budget_usd: float | None = None
    shard: int = 0


def hold_collection(connection: Connection, target: Target) -> Target:
    """Check the names against each other; until the commit, the collection is not deleted, nor served by another
    generation.

    Returns the target with the generation that is active, which may be another than its caller knew. Raises NotFound.
    """
    owned = sa.select(collections.c.id).where(collections.c.id == target.collection_id)
    owned = owned.where(collections.c.tenant_id == target.tenant).with_for_update(read=True, key_share=True)
    if connection.scalar(owned) is None:
        raise NotFound(f"there is no collection {target.collection_id!r}")
    mine = sa.select(generations.c.id, generations.c.shard, generations.c.state)
    rows = connection.execute(mine.where(generations.c.collection_id == target.collection_id)).all()
    if target.generation_id not in {row.id for row in rows}:
        raise NotFound(f"the collection has no generation {target.generation_id!r}")
    active = next(row for row in rows if row.state == "active")
    return replace(target, generation_id=GenerationId(active.id), shard=active.shard)


def hold_job(connection: Connection, target: Target, job_id: JobId) -> None:
    """Keep the job as it is until the commit. Raises NotFound, or Conflict when nothing can be added to it."""
    wanted = sa.select(jobs.c.state, jobs.c.collection_id).where(jobs.c.id == job_id, jobs.c.tenant_id == target.tenant)
    row = connection.execute(wanted.with_for_update(key_share=True)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id!r}")
    if row.collection_id != target.collection_id:
        raise Conflict(f"job {job_id} belongs to another collection: submit without a job to begin a new one")
    if row.state == "cancelled":
        raise Conflict(f"job {job_id} was cancelled: submit without a job to begin a new one")


def record_job(connection: Connection, target: Target, job_id: JobId | None, *, opened: bool, unchanged: int) -> JobId:
    """Make the job, or go on with it: running when something was ``opened``, else done already.

    Raises Conflict when somebody is to be told and there is nothing to sign that with.
    """
    if target.webhook_url is not None:
        require_secret(connection, target.tenant)
    state = {"state": "running", "finished_at": None} if opened else {"state": "done", "finished_at": target.now}
    if job_id is not None:
        values: dict[str, Any] = {"unchanged": jobs.c.unchanged + unchanged, **(state if opened else {})}
        if target.webhook_url is not None:
            if not opened:
                _tell_of_done(connection, target, job_id)
            values["webhook_url"] = target.webhook_url
        if target.budget_usd is not None:
            values["budget_usd"] = target.budget_usd
            wake_for_money(connection, target.tenant)
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(values))
        return job_id
    made = JobId(new_id("job"))
    owner = {"tenant_id": target.tenant, "collection_id": target.collection_id}
    row = {"id": made, **owner, **state, "unchanged": unchanged, "created_at": target.now}
    inserted = (
        sa.insert(jobs).values(webhook_url=target.webhook_url, budget_usd=target.budget_usd, **row).returning(*ENDED)
    )
    ended = connection.execute(inserted).all()
    tell(connection, [] if opened else ended, now=target.now)
    return made


def _tell_of_done(connection: Connection, target: Target, job_id: JobId) -> None:
    """Tell who is named now of a job that is done already, and was told to others or nobody: it ends no more."""
    mine = sa.select(jobs.c.id, jobs.c.tenant_id, sa.literal(target.webhook_url).label("webhook_url"))
    mine = mine.where(
        jobs.c.id == job_id, jobs.c.state == "done", jobs.c.webhook_url.is_distinct_from(target.webhook_url)
    )
    tell(connection, connection.execute(mine).all(), now=target.now)


def supersede_queued(connection: Connection, target: Target, document_ids: Sequence[str]) -> int:
    """End the queued versions of these documents, which a newer one makes needless. Returns how many there were."""
    affected: dict[str, str] = {}
    left = Amount()
    for some in slices(document_ids):
        queued = sa.select(versions.c.id, versions.c.job_id, versions.c.size_bytes)
        queued = queued.where(versions.c.document_id.in_(some))
        queued = queued.where(versions.c.collection_id == target.collection_id)
        queued = queued.where(versions.c.state == "queued").order_by(versions.c.id).with_for_update()
        for row in connection.execute(queued):
            affected[row.id] = row.job_id
            left += Amount(1, row.size_bytes)
    for some in slices(list(affected)):
        ended = sa.update(versions).where(versions.c.id.in_(some))
        connection.execute(ended.values(state="superseded", finished_at=target.now))
    if affected:
        finish_jobs(connection, now=target.now, job_ids=set(affected.values()))
        count_left(connection, {target.tenant: left})
    return len(affected)


def open_writers_batch(connection: Connection, target: Target, *, document_count: int, chunk_count: int = 0) -> BatchId:
    """Make a batch that skips chunk and embed: its versions wait for the writer of the shard."""
    row = ready_batch(
        "index",
        tenant=target.tenant,
        generation_id=target.generation_id,
        shard=target.shard,
        now=target.now,
        document_count=document_count,
        chunk_count=chunk_count,
    )
    connection.execute(sa.insert(batches).values(row))
    return BatchId(row["id"])


def raise_newest(connection: Connection, target: Target, document_ids: Sequence[str]) -> None:
    """Count one more version of each of these documents, which the caller holds."""
    for some in slices(document_ids):
        raised = sa.update(documents).where(documents.c.collection_id == target.collection_id)
        number = documents.c.highest + 1
        connection.execute(raised.where(documents.c.id.in_(some)).values(newest=number, highest=number))


@dataclass(frozen=True)
class HeldDocuments:
    """Documents that exist, with the newest version of each, and where what is asked of them is to be recorded."""

    rows: Sequence[Row[Any]]
    target: Target


def hold_documents(
    connection: Connection, target: Target, chosen: sa.ColumnElement[bool], *, job_id: JobId | None
) -> HeldDocuments:
    """Find the documents, and keep others from numbering versions of them until the commit."""
    target = hold_collection(connection, target)
    if job_id is not None:
        hold_job(connection, target, job_id)
    mine = (documents.c.collection_id == target.collection_id, documents.c.tenant_id == target.tenant, chosen)
    sources = connection.scalars(sa.select(documents.c.source).where(*mine)).all()
    lock_sources(connection, target.collection_id, sources=sources)
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    told = ("state", "filename", "media_type", "title", "metadata", "event_time", "expires_at", "size_bytes")
    of_document = (documents.c.id, documents.c.source, documents.c.newest, documents.c.highest)
    wanted = sa.select(*of_document, *(versions.c[name] for name in told))
    wanted = wanted.join(versions, newest, isouter=True).where(*mine).order_by(documents.c.id)
    return HeldDocuments(connection.execute(wanted).all(), target)


def empty_version(
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


def insert_versions(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert these versions, their ids in this order."""
    made = sorted(VersionId(new_id("ver")) for _ in rows)
    connection.execute(sa.insert(versions), [{"id": new, **row} for new, row in zip(made, rows, strict=True)])
