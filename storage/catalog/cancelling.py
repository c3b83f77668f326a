"""Cancels the documents of a job: what workers hold first, then what waits, a bounded number in each transaction.

Of a million documents in one transaction everybody else would have to wait for half a minute.
"""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..ids import CollectionId, JobId, TenantId
from .backlogs import Amount, count_left, waiting_in
from .completion import OPEN_BATCH, UNFINISHED, close_empty_batches
from .engine import Catalog
from .sources import lock_sources
from .tables import OF_DOCUMENT, batches, documents, jobs, versions
from .values import slices

AT_ONCE = 5_000
BREATH_S = 0.1  # between two: SQLite gives its lock to whoever asks first, and others look again after up to 0.1 s
TURNS = 10
_HELD = tuple(state for state in UNFINISHED if state != "queued")
# What a document is when all that came after it was cancelled. None that pruning may take at the same moment.
_SHOWN = (*UNFINISHED, "indexed")
_LATELY_S = 7 * 86_400.0


class Cancelled(NamedTuple):
    documents: int
    more: bool  # there may be


def cancel_some(connection: Connection, job_id: JobId, *, collection_id: CollectionId, now: float) -> Cancelled:
    """Cancel up to `AT_ONCE` unfinished documents of a job whose row the caller holds."""
    found = _unfinished(connection, job_id, limit=AT_ONCE)
    replaced = [row for row in found if (row.number or 0) > 1]
    # Before batches and versions, as whoever accepts a version does: others must not number versions meanwhile.
    lock_sources(connection, collection_id, sources=_sources(connection, replaced, collection_id=collection_id))
    groups = sorted({row.batch_id for row in found if row.batch_id is not None})
    _lock_batches(connection, groups)
    left: dict[TenantId, Amount] = {}
    for some in slices([row.id for row in found]):
        waits = waiting_in(connection, sa.and_(versions.c.id.in_(some), versions.c.state == "queued"))
        left |= {tenant: left.get(tenant, Amount()) + amount for tenant, amount in waits.items()}
        mine = (versions.c.id.in_(some), versions.c.state.in_(UNFINISHED))
        connection.execute(sa.update(versions).where(*mine).values(state="cancelled", finished_at=now))
    count_left(connection, left)
    close_empty_batches(connection, groups, now=now)
    for some in slices([row.document_id for row in replaced]):
        _show_older(connection, some, collection_id=collection_id)
    return Cancelled(len(found), more=len(found) == AT_ONCE)


def cancel_rest(
    catalog: Catalog, job_id: JobId, *, collection_id: CollectionId, now: float, most: int | None = None
) -> int:
    """Cancel what is left of a cancelled job, in up to ``most`` transactions. Returns how many documents that were."""
    cancelled = turns = 0
    while most is None or turns < most:
        if turns:
            time.sleep(BREATH_S)
        with catalog.write("cancel_rest") as connection:
            mine = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "cancelled")
            if connection.scalar(mine.with_for_update(key_share=True)) is None:
                break
            found = cancel_some(connection, job_id, collection_id=collection_id, now=now)
        cancelled, turns = cancelled + found.documents, turns + 1
        if not found.more:
            break
    return cancelled


def finish_cancelled(catalog: Catalog, *, now: float) -> int:
    """Go on where whoever cancelled a job died, for a second or two. Returns how many documents were cancelled."""
    unfinished = sa.exists().where(versions.c.job_id == jobs.c.id, versions.c.state.in_(UNFINISHED))
    left = sa.select(jobs.c.id, jobs.c.collection_id).where(jobs.c.state == "cancelled", unfinished)
    with catalog.read() as connection:
        row = connection.execute(left.where(jobs.c.finished_at > now - _LATELY_S).limit(1)).first()
    if row is None:
        return 0
    collection = CollectionId(row.collection_id)
    return cancel_rest(catalog, JobId(row.id), collection_id=collection, now=now, most=TURNS)


def _unfinished(connection: Connection, job_id: JobId, *, limit: int) -> list[Row[Any]]:
    columns = (versions.c.id, versions.c.document_id, versions.c.number, versions.c.batch_id)
    mine: sa.Select[Any] = sa.select(*columns).where(versions.c.job_id == job_id)
    found = list(connection.execute(mine.where(versions.c.state.in_(_HELD)).limit(limit)))
    if len(found) < limit:
        found += connection.execute(mine.where(versions.c.state == "queued").limit(limit - len(found)))
    return found


def _sources(connection: Connection, rows: Sequence[Row[Any]], *, collection_id: CollectionId) -> list[str]:
    wanted = sa.select(documents.c.source).where(documents.c.collection_id == collection_id)
    return [
        source
        for some in slices([row.document_id for row in rows])
        for source in connection.scalars(wanted.where(documents.c.id.in_(some)))
    ]


def _show_older(connection: Connection, document_ids: Sequence[str], *, collection_id: CollectionId) -> None:
    """Let the newest version of each document be the one that is served or on its way, where there is one."""
    is_cancelled = sa.exists().where(
        OF_DOCUMENT, versions.c.number == documents.c.newest, versions.c.state == "cancelled"
    )
    older = sa.select(sa.func.max(versions.c.number)).where(OF_DOCUMENT, versions.c.state.in_(_SHOWN)).scalar_subquery()
    shown = sa.update(documents).where(documents.c.collection_id == collection_id, documents.c.id.in_(document_ids))
    connection.execute(shown.where(is_cancelled, older.is_not(None)).values(newest=older))


def _lock_batches(connection: Connection, groups: Sequence[str]) -> None:
    """Take batches before versions, as every stage does: the other way round, two transactions could wait in a ring."""
    for some in slices(groups):
        held = sa.select(batches.c.id).where(batches.c.group_id.in_(some), batches.c.state.in_(OPEN_BATCH))
        connection.execute(held.order_by(batches.c.id).with_for_update()).all()
