"""Documents that start again: their version goes back to the beginning of the line, where their pack is intact.

Part of a repair's publish transaction. A document that cannot start again fails, with the reason.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.tables import IS_INDEXED, jobs, versions
from ..catalog.values import slices
from ..errors import Conflict
from ..ids import CollectionId, DocumentId, JobId, VersionId, new_id
from .checksums import CheckedFiles
from .wording import counted

BYTES_LOST = "Its chunks were lost, and its submitted bytes are gone too: submit it again."
WAS_TRIMMED = "Its chunks were lost, and some of them had been deleted before, which would come back: submit it again."


@dataclass(frozen=True)
class Restart:
    """What becomes of a document whose chunks are lost; ``error`` says why it cannot start again."""

    version_id: VersionId
    job_id: JobId
    error: str | None


def plan_restarts(
    connection: Connection,
    checked: CheckedFiles,
    *,
    collection_id: CollectionId,
    documents: Collection[DocumentId],
    trimmed: Collection[str],
) -> list[Restart]:
    """Look at the packs of these documents. ``trimmed``: those of which chunks were deleted one by one."""
    named = (versions.c.id, versions.c.job_id, versions.c.document_id, versions.c.pack)
    wanted = sa.select(*named).where(versions.c.collection_id == collection_id, IS_INDEXED)
    found: list[Restart] = []
    for some in slices(sorted(documents)):
        for row in connection.execute(wanted.where(versions.c.document_id.in_(some))).all():
            error = BYTES_LOST if checked.problem_of_named(row.pack) else None
            error = WAS_TRIMMED if row.document_id in trimmed else error
            found.append(Restart(VersionId(row.id), JobId(row.job_id), error))
    return found


def restart(connection: Connection, restarts: Iterable[Restart], *, now: float) -> None:
    """Queue the versions again, or fail them; their jobs go on, or another one in the place of a cancelled one.

    Locks jobs, then versions, as everywhere.

    Raises:
        Conflict: one of them is not indexed any more. Roll back and look again.
    """
    several = list(restarts)
    queued = [one for one in several if one.error is None]
    for old, new in _reopen_jobs(connection, {one.job_id for one in queued}, now=now).items():
        _update(connection, [one.version_id for one in queued if one.job_id == old], {"job_id": new})
    again: dict[str, Any] = {
        "state": "queued",
        "action": "put",
        "batch_id": None,
        "chunk_count": None,
        "finished_at": None,
        "indexed_version": None,
    }
    changed = _update(connection, [one.version_id for one in queued], again)
    for reason in (BYTES_LOST, WAS_TRIMMED):
        failed = {"state": "failed", "stage": "index", "error_code": "chunks_lost", "error": reason, "finished_at": now}
        changed += _update(connection, [one.version_id for one in several if one.error == reason], failed)
    if changed != len(several):
        raise Conflict(f"{counted(len(several) - changed, 'document')} changed while the index was being mended")


def _reopen_jobs(connection: Connection, job_ids: Collection[JobId], *, now: float) -> dict[JobId, JobId]:
    """Let these jobs go on. Returns the job that takes the place of each that was cancelled.

    What is unfinished in a cancelled job is cancelled: nothing can start again there.
    """
    instead: dict[JobId, JobId] = {}
    for some in slices(sorted(job_ids)):
        held = sa.select(jobs.c.id, jobs.c.state, jobs.c.tenant_id, jobs.c.collection_id).where(jobs.c.id.in_(some))
        rows = connection.execute(held.order_by(jobs.c.id).with_for_update()).all()
        reopened = sa.update(jobs).where(jobs.c.id.in_(some), jobs.c.state == "done")
        connection.execute(reopened.values(state="running", finished_at=None))
        cancelled = [row for row in rows if row.state == "cancelled"]
        instead |= {JobId(row.id): JobId(new_id("job")) for row in cancelled}
        made = [
            {"id": instead[JobId(row.id)], "tenant_id": row.tenant_id, "collection_id": row.collection_id}
            for row in cancelled
        ]
        if made:
            connection.execute(sa.insert(jobs).values(state="running", created_at=now), made)
    return instead


def _update(connection: Connection, ids: Collection[VersionId], values: dict[str, Any]) -> int:
    changed = 0
    for some in slices(sorted(ids)):
        mine = sa.update(versions).where(versions.c.id.in_(some), IS_INDEXED)
        changed += connection.execute(mine.values(values)).rowcount
    return changed
