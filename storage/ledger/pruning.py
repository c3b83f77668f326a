"""Forgets finished work, so that the ledger grows with the documents and not with how often they are sent again.

What is over never begins anew: it is looked for without a lock, then deleted a little at a time, in short
transactions. Which packs are garbage then, the collector finds out.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH, UNFINISHED
from ..catalog.engine import Catalog
from ..catalog.history import History
from ..catalog.tables import NEVER_SERVED_AGAIN, batches, documents, jobs, versions

KEEP_S = 7 * 86_400.0  # time to find out on Monday what went wrong on Friday
_AT_ONCE = 500  # rows in one transaction, in which nobody else writes on SQLite


@dataclass(frozen=True)
class Pruned:
    """How many rows were deleted."""

    batches: int
    versions: int


def prune(catalog: Catalog, *, now: float, keep_s: float = KEEP_S) -> Pruned:
    """Delete batches that ended longer than ``keep_s`` ago, and document versions that did and were overtaken.

    A batch stays while its group has an open one or an unfinished document. A version stays while it is the newest of
    its document, indexed, or in a batch; what it tells of its job moves to the job's row. Run by several at once, each
    row is counted once.
    """
    return Pruned(
        batches=_prune_batches(catalog, ended_before=now - keep_s),
        versions=_prune_versions(catalog, ended_before=now - keep_s),
    )


def _prune_batches(catalog: Catalog, *, ended_before: float) -> int:
    others = batches.alias("others")
    still_open = sa.exists().where(others.c.group_id == batches.c.group_id, others.c.state.in_(OPEN_BATCH))
    unfinished = sa.exists().where(versions.c.batch_id == batches.c.group_id, versions.c.state.in_(UNFINISHED))
    over = sa.select(batches.c.id).where(batches.c.finished_at < ended_before, ~still_open, ~unfinished)
    pruned = 0
    while found := _first(catalog, over.order_by(batches.c.finished_at)):
        with catalog.write("prune_batches") as connection:
            ids = [row.id for row in found]
            pruned += connection.execute(sa.delete(batches).where(batches.c.id.in_(ids))).rowcount
    return pruned


def _prune_versions(catalog: Catalog, *, ended_before: float) -> int:
    overtaken = sa.exists().where(documents.c.id == versions.c.document_id, documents.c.newest > versions.c.number)
    in_batch = sa.exists().where(batches.c.group_id == versions.c.batch_id)
    over = sa.select(versions.c.id, versions.c.job_id).where(NEVER_SERVED_AGAIN, versions.c.finished_at < ended_before)
    over = over.where(overtaken, ~in_batch).order_by(versions.c.finished_at)
    pruned = 0
    while found := _first(catalog, over):
        with catalog.write("prune_versions") as connection:
            pruned += _forget(connection, found)
    return pruned


def _first(catalog: Catalog, wanted: sa.Select[Any]) -> Sequence[Row[Any]]:
    with catalog.read() as connection:
        return connection.execute(wanted.limit(_AT_ONCE)).all()


def _forget(connection: Connection, found: Sequence[Row[Any]]) -> int:
    """Delete these versions, those that are still there, and add what they were to their jobs."""
    held = sa.select(jobs.c.id, jobs.c.pruned).where(jobs.c.id.in_({row.job_id for row in found}))
    former = {
        row.id: row.pruned for row in connection.execute(held.order_by(jobs.c.id).with_for_update(key_share=True))
    }
    deleted = sa.delete(versions).where(versions.c.id.in_([row.id for row in found]))
    told = (versions.c.job_id, versions.c.state, versions.c.generation_id, versions.c.indexed_version)
    gone: dict[str, History] = defaultdict(History)
    count = 0
    for row in connection.execute(deleted.returning(*told)):
        token = (row.generation_id, row.indexed_version) if row.indexed_version is not None else None
        gone[row.job_id] += History({row.state: 1}, token)
        count += 1
    for job_id, history in gone.items():
        pruned = (History.from_details(former[job_id]) + history).to_details()
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(pruned=pruned))
    return count
