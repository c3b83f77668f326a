"""Which dead documents may begin again or be given up, and why others may not. It changes nothing.

In a transaction that holds the documents a verdict stays true until the commit.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import UNFINISHED
from ..catalog.sources import lock_sources
from ..catalog.tables import OF_DOCUMENT, documents, jobs, versions
from ..errors import Conflict
from ..ids import JobId
from ..objects.store import ObjectStore
from .acceptance import Target, hold_collection

ALIVE = (*UNFINISHED, "indexed")


@dataclass(frozen=True)
class Refusal:
    """Why one document stays as it is: ``code`` for programs, ``reason`` for people."""

    document_id: str
    source: str | None
    code: str
    reason: str


class Packs:
    """Whether the bytes of dead documents are stored, asked before the transaction that depends on it.

    A pack that was found stays while a version of a document refers to it: no collector deletes it.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: set[str] = set()
        self.lost: set[str] = {""}

    def know(self, rows: Sequence[Row[Any]]) -> bool:
        """Say whether all that the dead ones among these need was looked for."""
        return self._needed(rows) <= self._known

    def look(self, rows: Sequence[Row[Any]]) -> None:
        """Look for what the dead ones among these need."""
        needed = self._needed(rows) - self._known
        self.lost.update(self._objects.missing(sorted(needed)))
        self._known |= needed

    def _needed(self, rows: Sequence[Row[Any]]) -> set[str]:
        return {row.pack for row in rows if row.state == "failed" and row.pack}


def newest(
    connection: Connection, target: Target, document_ids: Sequence[str], *, hold: bool, job_id: JobId | None = None
) -> tuple[Target, Sequence[Row[Any]]]:
    """Return the target with the active generation, and the newest version of each of the documents that there are.

    ``hold``: nobody changes them until the commit, nor the jobs in which they died and ``job_id``, which goes on with
    them. Jobs come before documents and versions, as everywhere. Raises Conflict: ``job_id`` was cancelled.
    """
    target = hold_collection(connection, target) if hold else target
    mine = (documents.c.tenant_id == target.tenant, documents.c.collection_id == target.collection_id)
    is_newest = sa.and_(OF_DOCUMENT, versions.c.number == documents.c.newest)
    ours = (*mine, documents.c.id.in_(document_ids))
    told = sa.select(documents.c.source, versions.c.job_id, versions.c.state).join(versions, is_newest).where(*ours)
    if hold:
        found = connection.execute(told).all()
        named = {job_id, *(row.job_id for row in found if row.state == "failed")} - {None}
        held = sa.select(jobs.c.id, jobs.c.state).where(jobs.c.id.in_(sorted(named))).order_by(jobs.c.id)
        if (job_id, "cancelled") in map(tuple, connection.execute(held.with_for_update(key_share=True))):
            raise Conflict(f"job {job_id} of this retry was cancelled meanwhile: retry those that are still dead again")
        lock_sources(connection, target.collection_id, sources=[row.source for row in found])
    wanted = _judged(is_newest).where(*ours).order_by(versions.c.id)
    return target, connection.execute(wanted.with_for_update(of=versions) if hold else wanted).all()


def _judged(is_newest: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """Return what decides whether a version may be retried, besides itself: other versions that are alive."""
    other = versions.alias("other")
    same = (other.c.document_id == versions.c.document_id, other.c.collection_id == versions.c.collection_id)
    alive = sa.exists().where(*same, other.c.state.in_(ALIVE), other.c.action != "trim").correlate(versions)
    overtaken = alive.where(other.c.number > versions.c.number).label("overtaken")
    follows = alive.where(other.c.number < versions.c.number).label("follows")
    return sa.select(versions, documents.c.source, overtaken, follows).select_from(documents.join(versions, is_newest))


def refusals(
    rows: Sequence[Row[Any]], document_ids: Sequence[str], *, bytes_lost: Collection[str] | None
) -> list[Refusal]:
    """Return why some of the documents must stay as they are. ``bytes_lost``: packs; None where none is needed."""
    reasons = [(row, _why_not(row, bytes_lost=bytes_lost)) for row in rows]
    here = {row.document_id for row in rows}
    unknown = "the collection has no such document"
    return [
        *(Refusal(row.document_id, row.source, *why) for row, why in reasons if why),
        *(Refusal(one, None, "not_found", unknown) for one in document_ids if one not in here),
    ]


def _why_not(row: Row[Any], *, bytes_lost: Collection[str] | None) -> tuple[str, str] | None:
    if row.state != "failed":
        return "not_dead", f"its newest version, {row.number}, is {row.state}"
    if bytes_lost is None:
        return None
    if row.overtaken:
        return "newer_version", "a newer version of it is indexed or on its way, and wins"
    if row.action == "put" and row.pack in bytes_lost:
        return "bytes_gone", "its submitted bytes are not stored any more: submit it again"
    if row.action == "update" and not row.follows:
        return "nothing_to_describe", "the version that it describes anew is gone: submit the document again"
    return None


def others(rows: Sequence[Row[Any]], refusals: Sequence[Refusal]) -> list[Row[Any]]:
    refused = {one.document_id for one in refusals}
    return [row for row in rows if row.document_id not in refused]
