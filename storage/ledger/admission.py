"""What may enter the queue next: chunk batches formed fairly over tenants, and batches that are due.

The queue stays shallow because its callers ask for little; the rest waits here, where nothing can lose it.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.tables import IS_QUEUED, batches, generations, versions
from ..catalog.values import slices
from ..ids import BatchId, GenerationId, TenantId, new_id


@dataclass(frozen=True)
class ReadyBatch:
    id: BatchId
    stage: str
    shard: int


@dataclass(frozen=True)
class _Backlog:
    """A generation with queued versions."""

    tenant_id: TenantId
    generation_id: GenerationId
    shard: int


def form_chunk_batches(
    catalog: Catalog, *, now: float, max_batches: int, max_documents: int = 256, max_bytes: int = 1 << 20
) -> int:
    """Put queued versions into new chunk batches and return how many were made.

    A batch holds one generation's documents, oldest first, up to either limit (a larger document goes alone).
    Each batch goes to the tenant with the fewest batches open in the chunk stage, so that a flood waits for itself.
    """
    made = 0
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(versions.c.id).where(IS_QUEUED).limit(1)) is None:
            return 0
    with catalog.write("form_chunk_batches") as connection:
        waiting = _backlogs(connection)
        load = _open_chunk_batches(connection) if waiting else Counter()
        while waiting and made < max_batches:
            backlog = min(waiting, key=lambda one: load[one.tenant_id])
            waiting.remove(backlog)
            found = _oldest_queued(connection, backlog, max_documents=max_documents, max_bytes=max_bytes)
            if not found:
                continue
            _form(connection, backlog, found, now=now)
            made += 1
            load[backlog.tenant_id] += 1
            waiting.append(backlog)  # behind the tenant's other generations
    return made


def take_ready(catalog: Catalog, *, stage: str, now: float, limit: int, resend_after_s: float) -> list[ReadyBatch]:
    """Mark up to ``limit`` due batches as sent, tenants in turn, and return them in that order for the queue.

    If nobody claims one, the reconciler makes it ready again after ``resend_after_s``.
    """
    due = (batches.c.stage == stage, batches.c.state == "ready", batches.c.next_attempt_at <= now)
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(batches.c.id).where(*due).limit(1)) is None:
            return []
    turn = sa.func.row_number().over(partition_by=batches.c.tenant_id, order_by=batches.c.id)
    ranked = sa.select(batches.c.id, turn.label("turn")).where(*due).subquery()
    first = sa.select(ranked).order_by(ranked.c.turn, ranked.c.id).limit(limit).subquery()
    wanted = sa.select(batches.c.id, batches.c.stage, batches.c.shard).join(first, first.c.id == batches.c.id)
    wanted = wanted.where(*due).order_by(first.c.turn, first.c.id)
    with catalog.write("take_ready") as connection:
        rows = connection.execute(wanted.with_for_update(skip_locked=True, of=batches)).all()
        for some in slices([row.id for row in rows]):
            sent = sa.update(batches).where(batches.c.id.in_(some))
            connection.execute(sent.values(state="sent", lease_until=now + resend_after_s))
    return [ReadyBatch(BatchId(row.id), row.stage, row.shard) for row in rows]


def _backlogs(connection: Connection) -> list[_Backlog]:
    # One index probe per generation, however many documents wait in it.
    queued = sa.exists().where(IS_QUEUED, versions.c.generation_id == generations.c.id)
    found = sa.select(generations.c.tenant_id, generations.c.id, generations.c.shard).where(queued)
    return [_Backlog(*row) for row in connection.execute(found.order_by(generations.c.id))]


def _open_chunk_batches(connection: Connection) -> Counter[TenantId]:
    counted = sa.select(batches.c.tenant_id, sa.func.count()).where(batches.c.stage == "chunk")
    rows = connection.execute(counted.where(batches.c.state.in_(OPEN_BATCH)).group_by(batches.c.tenant_id))
    return Counter({TenantId(tenant_id): count for tenant_id, count in rows})


def _oldest_queued(connection: Connection, backlog: _Backlog, *, max_documents: int, max_bytes: int) -> list[Row[Any]]:
    wanted: sa.Select[Any] = (
        sa.select(versions.c.id, versions.c.size_bytes)
        .where(IS_QUEUED, versions.c.generation_id == backlog.generation_id)
        .order_by(versions.c.id)
        .limit(max_documents)
        .with_for_update(skip_locked=True)
    )
    taken: list[Row[Any]] = []
    size_bytes = 0
    for row in connection.execute(wanted):
        size_bytes += row.size_bytes
        if taken and size_bytes > max_bytes:
            break
        taken.append(row)
    return taken


def _form(connection: Connection, backlog: _Backlog, found: list[Row[Any]], *, now: float) -> None:
    batch_id = new_id("batch")
    connection.execute(
        sa.insert(batches).values(
            id=batch_id,
            tenant_id=backlog.tenant_id,
            generation_id=backlog.generation_id,
            shard=backlog.shard,
            stage="chunk",
            state="ready",
            group_id=batch_id,
            document_count=len(found),
            size_bytes=sum(row.size_bytes for row in found),
            created_at=now,
        )
    )
    for some in slices([row.id for row in found]):
        moved = sa.update(versions).where(versions.c.id.in_(some), versions.c.state == "queued")
        connection.execute(moved.values(state="chunking", batch_id=batch_id))
