"""Cancels the documents of a job, a bounded number in each transaction: what is nearest to being indexed comes first.

Of a million documents in one transaction everybody else would have to wait for half a minute. What is last, and in no
batch yet, is not put into any meanwhile: see `is_being_cancelled`.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
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
BREATH_S = 0.1  # between two, which hold SQLite's lock for about 0.2 s each: others have a third of the time
TURNS = 10
# Whoever publishes could have done so with what is in the first ones before the last ones are cancelled.
_ORDER = ("indexing", "deleting", "trimming", "embedding", "chunking", "queued")
assert set(_ORDER) == set(UNFINISHED)
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


def cancel_rest(catalog: Catalog, job_id: JobId, *, collection_id: CollectionId, now: float) -> Iterator[Cancelled]:
    """Cancel what is left of a cancelled job. Each step is one transaction, and says what it did.

    Whoever takes the steps waits `BREATH_S` between two, so that others have their turn.
    """
    while True:
        with catalog.write("cancel_rest") as connection:
            mine = sa.select(jobs.c.id).where(jobs.c.id == job_id, jobs.c.state == "cancelled")
            if connection.scalar(mine.with_for_update(key_share=True)) is None:
                return
            cancelled = cancel_some(connection, job_id, collection_id=collection_id, now=now)
        yield cancelled
        if not cancelled.more:
            return


def slowly(steps: Iterator[Cancelled]) -> int:
    """Take these steps, with a pause between two. Returns how many documents they cancelled."""
    documents = 0
    for step in steps:
        documents += step.documents
        if step.more:
            time.sleep(BREATH_S)
    return documents


def finish_cancelled(catalog: Catalog, *, now: float) -> int:
    """Go on where whoever cancelled a job died, for a second or two. Returns how many documents were cancelled."""
    unfinished = sa.exists().where(versions.c.job_id == jobs.c.id, versions.c.state.in_(UNFINISHED))
    left = sa.select(jobs.c.id, jobs.c.collection_id).where(jobs.c.state == "cancelled", unfinished)
    with catalog.read() as connection:
        row = connection.execute(left.where(jobs.c.finished_at > now - _LATELY_S).limit(1)).first()
    if row is None:
        return 0
    steps = cancel_rest(catalog, JobId(row.id), collection_id=CollectionId(row.collection_id), now=now)
    return slowly(islice(steps, TURNS))


def is_being_cancelled(now: sa.BindParameter[float]) -> sa.ColumnElement[bool]:
    """Return the condition for jobs that were cancelled: what is left of them is about to be, and not worth beginning.

    Those of which `finish_cancelled` would know nothing are not among them, so that nothing stays for ever.
    """
    return sa.and_(jobs.c.state == "cancelled", jobs.c.finished_at > now - _LATELY_S)


def _unfinished(connection: Connection, job_id: JobId, *, limit: int) -> list[Row[Any]]:
    columns = (versions.c.id, versions.c.document_id, versions.c.number, versions.c.batch_id)
    mine: sa.Select[Any] = sa.select(*columns).where(versions.c.job_id == job_id)
    found: list[Row[Any]] = []
    for state in _ORDER:
        if len(found) < limit:
            found += connection.execute(mine.where(versions.c.state == state).limit(limit - len(found)))
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
