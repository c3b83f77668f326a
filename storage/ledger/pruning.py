"""Forgets finished work, so that the ledger grows with the documents and not with how often they are sent again.

What is over never begins anew: it is looked for without a lock, oldest first, then deleted a little at a time, in short
transactions. Which packs are garbage then, the collector finds out.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH, UNFINISHED
from ..catalog.engine import Catalog
from ..catalog.history import History, keep_histories
from ..catalog.tables import (
    GONE,
    NEVER_SERVED_AGAIN,
    OF_DOCUMENT,
    batches,
    documents,
    generations,
    jobs,
    manifests,
    versions,
)

KEEP_S = 7 * 86_400.0  # time to find out on Monday what went wrong on Friday
_AT_ONCE = 500  # rows in one transaction, in which nobody else writes on SQLite
_IN_VAIN = 10_000  # rows that stay, in one run that may go on from where it stopped

_Place = tuple[float, str]  # finished_at and id


@dataclass(frozen=True)
class Pruned:
    """How many rows were deleted."""

    batches: int
    versions: int


@dataclass
class PruningProgress:
    """How far the search for what is over has come; None: at the front. ``prune`` moves it on, its caller keeps it."""

    batches: _Place | None = None
    versions: _Place | None = None


def prune(catalog: Catalog, *, now: float, keep_s: float = KEEP_S, progress: PruningProgress | None = None) -> Pruned:
    """Delete batches that ended longer than ``keep_s`` ago, and document versions that did and were overtaken.

    A batch stays while its group has an open one or an unfinished document. A version stays while it is the newest of
    its document and not the end of it, indexed, in a batch, or served by a version of the index that is kept; what it
    tells of its job moves to the job's row. A document goes with its last version. Run by several at once, each row is
    counted once; one that another transaction holds is left to the next run.

    Without ``progress`` all that ended is looked at. With it a run ends after some thousands of rows that stay, however
    many there are, and the next goes on behind them, in the end from the front again.
    """
    ended_before = now - keep_s
    in_vain = None if progress is None else _IN_VAIN
    progress = progress or PruningProgress()
    old_batches = _Search(batches, sa.true(), _batch_is_over, _forget_batches, ended_before, in_vain)
    old_versions = _Search(versions, NEVER_SERVED_AGAIN, _version_is_over, _forget_versions, ended_before, in_vain)
    batch_count, progress.batches = old_batches.run(catalog, after=progress.batches)
    version_count, progress.versions = old_versions.run(catalog, after=progress.versions)
    return Pruned(batches=batch_count, versions=version_count)


@dataclass(frozen=True)
class _Search:
    """``condition`` says which rows to look at, ``is_over`` whether to forget one."""

    table: sa.Table
    condition: sa.ColumnElement[bool]
    is_over: Callable[[sa.FromClause], sa.ColumnElement[bool]]
    forget: Callable[[Connection, Sequence[Row[Any]]], int]
    ended_before: float
    in_vain: int | None

    def run(self, catalog: Catalog, *, after: _Place | None) -> tuple[int, _Place | None]:
        """Return how many rows were forgotten, and where to go on: None, from the front."""
        forgotten = stayed = 0
        while self.in_vain is None or stayed < self.in_vain:
            page = self._page(catalog, after=after)
            if over := [row for row in page if row.over]:
                with catalog.write(f"prune_{self.table.name}") as connection:
                    forgotten += self.forget(connection, over)
            if len(page) < _AT_ONCE:
                return forgotten, None
            stayed += len(page) - len(over)
            after = (page[-1].finished_at, page[-1].id)
        return forgotten, after

    def _page(self, catalog: Catalog, *, after: _Place | None) -> Sequence[Row[Any]]:
        place = (self.table.c.finished_at, self.table.c.id)
        ended = sa.select(self.table).where(self.condition, self.table.c.finished_at < self.ended_before)
        if after is not None:
            ended = ended.where(sa.tuple_(*place) > after)
        # Cut first, asked after: a server that expects to ask for all rows would read all of what it asks.
        page = ended.order_by(*place).limit(_AT_ONCE).subquery("page")
        told = [column for column in page.c if column.name in ("id", "finished_at", "job_id")]
        wanted: sa.Select[Any] = sa.select(*told, self.is_over(page).label("over"))
        with catalog.read() as connection:
            return connection.execute(wanted.order_by(page.c.finished_at, page.c.id)).all()


def _batch_is_over(page: sa.FromClause) -> sa.ColumnElement[bool]:
    still_open = sa.exists().where(batches.c.group_id == page.c.group_id, batches.c.state.in_(OPEN_BATCH))
    unfinished = sa.exists().where(versions.c.batch_id == page.c.group_id, versions.c.state.in_(UNFINISHED))
    of_copying = page.c.reembedding_id.is_not(None)  # which deletes them itself, when it has no use for them
    return sa.and_(~still_open, ~unfinished, ~of_copying)


def _version_is_over(page: sa.FromClause) -> sa.ColumnElement[bool]:
    mine = sa.and_(documents.c.id == page.c.document_id, documents.c.collection_id == page.c.collection_id)
    overtaken = sa.exists().where(mine, documents.c.newest != page.c.number)  # by an older one after a rollback
    shown_no_more = sa.or_(page.c.state.in_(GONE), page.c.action == "trim")
    in_batch = sa.exists().where(batches.c.group_id == page.c.batch_id)
    # By a version of the index that is kept, and that could be rolled back to: it came before this one ended.
    ended_later = (manifests.c.version >= page.c.indexed_version, manifests.c.followed_at <= page.c.finished_at)
    of_collection = (generations.c.id == manifests.c.generation_id, generations.c.state == "active")
    mine_too = (*of_collection, generations.c.collection_id == page.c.collection_id)
    still_served = sa.exists().where(*mine_too, *ended_later)
    return sa.and_(sa.or_(overtaken, shown_no_more), ~in_batch, ~still_served)


def _forget_batches(connection: Connection, found: Sequence[Row[Any]]) -> int:
    deleted = sa.delete(batches).where(batches.c.id.in_(_hold(connection, batches, found)))
    return connection.execute(deleted).rowcount


def _forget_versions(connection: Connection, found: Sequence[Row[Any]]) -> int:
    """Delete these versions, those that are still there, and add what they were to their jobs."""
    held = sa.select(jobs.c.id, jobs.c.pruned).where(jobs.c.id.in_({row.job_id for row in found}))
    former = {
        row.id: row.pruned for row in connection.execute(held.order_by(jobs.c.id).with_for_update(key_share=True))
    }
    deleted = sa.delete(versions).where(versions.c.id.in_(_hold(connection, versions, found)))
    told = (versions.c.job_id, versions.c.state, versions.c.generation_id, versions.c.indexed_version)
    gone: dict[str, History] = defaultdict(History)
    count = 0
    owners: set[tuple[str, str]] = set()
    for row in connection.execute(deleted.returning(*told, versions.c.collection_id, versions.c.document_id)):
        owners.add((row.collection_id, row.document_id))
        token = (row.generation_id, row.indexed_version) if row.indexed_version is not None else None
        gone[row.job_id] += History({row.state: 1}, token)
        count += 1
    keep_histories(
        connection, {job_id: History.from_details(former[job_id]) + history for job_id, history in gone.items()}
    )
    _forget_documents(connection, owners)
    return count


def _forget_documents(connection: Connection, owners: Collection[tuple[str, str]]) -> None:
    """Delete those of the documents that have no version left, and that nobody is about to give one."""
    key = sa.tuple_(documents.c.collection_id, documents.c.id)
    wanted = sa.select(*key).where(key.in_(sorted(owners))).order_by(*key)
    held = [tuple(row) for row in connection.execute(wanted.with_for_update(skip_locked=True))]
    if held:
        connection.execute(sa.delete(documents).where(key.in_(held), ~sa.exists().where(OF_DOCUMENT)))


def _hold(connection: Connection, table: sa.Table, found: Sequence[Row[Any]]) -> Sequence[str]:
    """Return the ids of those rows that are still there and that nobody else holds: to wait could be to deadlock."""
    wanted = sa.select(table.c.id).where(table.c.id.in_([row.id for row in found]))
    return connection.scalars(wanted.order_by(table.c.id).with_for_update(skip_locked=True)).all()
