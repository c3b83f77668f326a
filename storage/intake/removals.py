"""Accepts what takes documents out of a collection: one ledger transaction per slice.

From the moment a function here returns, what it counted leaves in a later version of the index, whatever dies, and in
the order of all other versions of the document. Repeating it is harmless. Nothing is looked up in the index: a filter
is resolved to ids before (``selections.py``), so that a document which arrives later is not hit.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from itertools import chain
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import GONE, OF_DOCUMENT, documents, versions
from ..catalog.values import slices, storable_names
from ..ids import CollectionId, GenerationId, JobId, TenantId
from .acceptance import (
    Target,
    empty_version,
    hold_documents,
    insert_versions,
    open_writers_batch,
    raise_newest,
    record_job,
    supersede_queued,
)

SAMPLE = 10
AT_ONCE = 500  # documents in one transaction, in which nobody else writes on SQLite


@dataclass(frozen=True)
class Removed:
    """What became of the documents that were named, each counted once however it was named.

    ``deleted`` will leave; ``already_deleted`` had left, expired included, or were about to; ``not_found`` were never
    here, or so long ago that nothing is known of them any more; ``changed`` stay, with (id, source) of a few of them.
    """

    job_id: JobId
    deleted: int
    already_deleted: int
    not_found: int
    changed: int = 0
    stayed: list[tuple[str, str]] = field(default_factory=list)


def remove_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    document_ids: Collection[str] = (),
    sources: Collection[str] = (),
    if_numbers: Mapping[str, int] | None = None,
    now: float,
    job_id: JobId | None = None,
) -> Removed:
    """Log the removal of these documents as one job; with ``job_id`` as a further part of that job.

    ``if_numbers``: by source, the number that the newest version of a document must still have; else it stays. Each of
    the others gets a version that holds nothing; versions that are still queued are superseded. More than `AT_ONCE` are
    logged in slices: after a failure in between, the same call again does what is left.

    Raises:
        NotFound: the tenant has no such collection, generation or job.
        Conflict: the job was cancelled, or belongs to another collection.
        Unavailable: the catalog did not answer.
    """
    target = Target(tenant, collection_id, generation_id, now)
    found_names, deleted, already = 0, 0, 0
    changed: list[tuple[str, str]] = []
    seen = _Seen(document_ids, sources)
    for chosen in _chosen(document_ids, sources):
        with catalog.write("remove") as connection:
            found = hold_documents(connection, target, chosen, job_id=job_id)
            fresh = seen.add(found.rows)
            leaving, stay = _leaving(fresh, if_numbers)
            job_id = record_job(connection, target, job_id, opened=bool(leaving), unchanged=0)
            _log_deletes(connection, found.target, leaving, job_id=job_id)
        found_names += len(found.rows)
        deleted += len(leaving)
        already += len(fresh) - len(leaving) - len(stay)
        changed += [(row.id, row.source) for row in stay]
    assert job_id is not None
    named = len({*document_ids}) + len({*sources})
    return Removed(job_id, deleted, already, named - found_names, len(changed), changed[:SAMPLE])


@dataclass(frozen=True)
class Survey:
    """What `remove_documents` would do now.

    ``sample``: (id, source) of a few documents that would leave, ``stayed``: of those that changed; ``missing``: a few
    of the names that were not found. ``ids``: of all that would leave, where that was asked for.
    """

    deleted: int
    already_deleted: int
    not_found: int
    sample: list[tuple[str, str]]
    missing: list[str]
    changed: int = 0
    stayed: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)


def survey_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    document_ids: Collection[str] = (),
    sources: Collection[str] = (),
    if_numbers: Mapping[str, int] | None = None,
    with_ids: bool = False,
) -> Survey:
    """Say what a removal of these documents would do. Changes nothing, and keeps nobody from changing it.

    Each slice is read by itself: a filter may have accepted a million documents, and a server tidies up nothing that
    an open transaction could still see.
    """
    mine = (documents.c.collection_id == collection_id, documents.c.tenant_id == tenant)
    newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    told: sa.Select[Any] = sa.select(documents.c.id, documents.c.source, documents.c.newest, versions.c.state)
    wanted = told.join(versions, newest, isouter=True)
    deleted, already, seen = 0, 0, _Seen(document_ids, sources)
    sample: list[tuple[str, str]] = []
    changed: list[tuple[str, str]] = []
    ids: list[str] = []
    unknown_ids, unknown_sources = {*document_ids}, {*sources}
    for chosen in _chosen(document_ids, sources):  # of each slice only numbers and a few names are kept
        with catalog.read() as connection:
            rows = connection.execute(wanted.where(*mine, chosen)).all()
        fresh = seen.add(rows)
        leaving, stay = _leaving(fresh, if_numbers)
        deleted += len(leaving)
        already += len(fresh) - len(leaving) - len(stay)
        changed += [(row.id, row.source) for row in stay]
        ids += [row.id for row in leaving] if with_ids else []
        sample = nsmallest(SAMPLE, [*sample, *((row.source, row.id) for row in leaving)])
        unknown_ids.difference_update(row.id for row in rows)
        unknown_sources.difference_update(row.source for row in rows)
    named = [(document_id, source) for source, document_id in sample]
    unknown = len(unknown_ids) + len(unknown_sources)
    missing = nsmallest(SAMPLE, chain(unknown_ids, unknown_sources))
    return Survey(deleted, already, unknown, named, missing, len(changed), changed[:SAMPLE], ids)


class _Seen:
    """Which documents were met: one may be named by its id and by its source, and only then anything is remembered."""

    def __init__(self, document_ids: Collection[str], sources: Collection[str]) -> None:
        self._ids: set[str] | None = set() if document_ids and sources else None

    def add(self, rows: Sequence[Row[Any]]) -> list[Row[Any]]:
        """Return those of the rows that were not met before."""
        if self._ids is None:
            return list(rows)
        fresh = [row for row in rows if row.id not in self._ids]
        self._ids.update(row.id for row in fresh)
        return fresh


def _chosen(document_ids: Collection[str], sources: Collection[str]) -> Iterator[sa.ColumnElement[bool]]:
    """Yield one condition per slice, at least one."""
    ids, names = storable_names(document_ids), storable_names(sources)
    if not ids and not names:
        yield sa.false()
    for column, named in ((documents.c.id, ids), (documents.c.source, names)):
        for some in slices(named, AT_ONCE):
            yield column.in_(some)


def _leaving(rows: Sequence[Row[Any]], if_numbers: Mapping[str, int] | None) -> tuple[list[Row[Any]], list[Row[Any]]]:
    """Return the rows of those that a delete has something to do for, and of those that changed and stay."""
    there = [row for row in rows if _leaves(row)]
    wanted = if_numbers or {}
    stay = [row for row in there if wanted.get(row.source, row.newest) != row.newest]
    return [row for row in there if wanted.get(row.source, row.newest) == row.newest], stay


def _leaves(newest: Row[Any]) -> bool:
    """Say whether a delete has something to do for a document whose newest version is this; without any it has not."""
    return newest.state not in (None, "deleting", *GONE)


def _log_deletes(connection: Connection, target: Target, leaving: Sequence[Row[Any]], *, job_id: JobId) -> None:
    if not leaving:
        return
    ids = [row.id for row in leaving]
    supersede_queued(connection, target, ids)
    batch_id = open_writers_batch(connection, target, document_count=len(ids))
    raise_newest(connection, target, ids)
    # What it said stays to be seen until the document is gone.
    told = ("filename", "media_type", "title", "metadata", "event_time", "expires_at", "size_bytes")
    rows = [
        {
            **empty_version(target, row.id, action="delete", state="deleting", job_id=job_id, batch_id=batch_id),
            **{name: getattr(row, name) for name in told},
            "number": row.highest + 1,
        }
        for row in leaving
    ]
    insert_versions(connection, rows)
