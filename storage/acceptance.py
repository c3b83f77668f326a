"""What every acceptance does in its transaction: check the names, hold what is below them, open the job.

Locks are taken in one order: tenant, collection, job, documents; versions and batches are only added after that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .catalog.completion import finish_jobs
from .catalog.tables import batches, collections, documents, generations, jobs, versions
from .catalog.values import slices
from .errors import Conflict, NotFound
from .ids import BatchId, CollectionId, GenerationId, JobId, TenantId, new_id


@dataclass(frozen=True)
class Target:
    """Where something is accepted, and when."""

    tenant: TenantId
    collection_id: CollectionId
    generation_id: GenerationId
    now: float


def hold_collection(connection: Connection, target: Target) -> int:
    """Check the names against each other, and keep the collection from being deleted until the commit.

    Returns the shard of the generation. Raises NotFound.
    """
    owned = sa.select(collections.c.id).where(collections.c.id == target.collection_id)
    owned = owned.where(collections.c.tenant_id == target.tenant).with_for_update(read=True, key_share=True)
    if connection.scalar(owned) is None:
        raise NotFound(f"there is no collection {target.collection_id!r}")
    generation = sa.select(generations.c.shard).where(generations.c.id == target.generation_id)
    shard: int | None = connection.scalar(generation.where(generations.c.collection_id == target.collection_id))
    if shard is None:
        raise NotFound(f"the collection has no generation {target.generation_id!r}")
    return shard


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
    """Make the job, or go on with it: running when something was ``opened``, else done already."""
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


def supersede_queued(connection: Connection, target: Target, document_ids: Sequence[str]) -> int:
    """End the queued versions of these documents, which a newer one makes needless. Returns how many there were."""
    affected: dict[str, str] = {}
    for some in slices(document_ids):
        queued = sa.select(versions.c.id, versions.c.job_id).where(versions.c.document_id.in_(some))
        queued = queued.where(versions.c.collection_id == target.collection_id)
        queued = queued.where(versions.c.state == "queued").order_by(versions.c.id).with_for_update()
        affected |= {row.id: row.job_id for row in connection.execute(queued)}
    for some in slices(list(affected)):
        ended = sa.update(versions).where(versions.c.id.in_(some))
        connection.execute(ended.values(state="superseded", finished_at=target.now))
    if affected:
        finish_jobs(connection, now=target.now, job_ids=set(affected.values()))
    return len(affected)


def open_writers_batch(
    connection: Connection, target: Target, *, shard: int, document_count: int, chunk_count: int = 0
) -> BatchId:
    """Make a batch that skips chunk and embed: its versions wait for the writer of the shard."""
    batch_id = BatchId(new_id("batch"))
    row = {
        "id": batch_id,
        "tenant_id": target.tenant,
        "generation_id": target.generation_id,
        "shard": shard,
        "stage": "index",
        "state": "ready",
        "group_id": batch_id,
        "document_count": document_count,
        "chunk_count": chunk_count,
        "created_at": target.now,
    }
    connection.execute(sa.insert(batches).values(row))
    return batch_id


def raise_newest(connection: Connection, target: Target, document_ids: Sequence[str]) -> None:
    """Count one more version of each of these documents, which the caller holds."""
    for some in slices(document_ids):
        raised = sa.update(documents).where(documents.c.collection_id == target.collection_id)
        number = documents.c.highest + 1
        connection.execute(raised.where(documents.c.id.in_(some)).values(newest=number, highest=number))
