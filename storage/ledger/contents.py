"""Which document versions a batch holds, and how they end when they fail. It moves no batch."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import UNFINISHED
from ..catalog.tables import OF_DOCUMENT, batches, documents, versions
from ..catalog.values import storable
from ..ids import BatchId, CollectionId, DocumentId, JobId, VersionId

# A removal waits for the writer as a document that was embedded does.
STATES_IN = {"chunk": ("chunking",), "embed": ("embedding",), "index": ("indexing", "deleting", "trimming")}

Action = Literal["put", "update", "delete", "trim"]


@dataclass(frozen=True)
class VersionRow:
    """A document version as it was accepted. Its bytes are ``size_bytes`` from ``pack_offset`` of object ``pack``.

    ``content_hash`` is their blake2b-256, ``metadata_hash`` that of the rest. A delete and a trim have no bytes. A trim
    makes no version: its ``number`` is 0, and its ``details`` say which chunks of which version it takes.
    """

    id: VersionId
    collection_id: CollectionId
    document_id: DocumentId
    job_id: JobId
    batch_id: BatchId
    action: Action
    number: int
    source: str
    filename: str
    media_type: str | None
    title: str | None
    metadata: Mapping[str, Any]
    event_time: float | None
    expires_at: float | None
    pack: str
    pack_offset: int
    size_bytes: int
    content_hash: bytes
    metadata_hash: bytes
    created_at: float
    details: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Tried:
    """How often and when a document was worked on: ``attempts`` at the stage where it failed, in company and alone.

    ``first_attempt_at``: when it was first worked on, in any stage.
    """

    attempts: int
    first_attempt_at: float | None
    last_attempt_at: float | None


NEVER = Tried(0, None, None)


@dataclass(frozen=True)
class FailedDocument:
    """Why a document version failed: ``code`` for programs, ``error`` for its owner."""

    version_id: VersionId
    code: str
    error: str


def holds_documents(batch: Row[Any]) -> bool:
    return batch.stage in STATES_IN and batch.reembedding_id is None


def wanted_by(batch: Row[Any]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for the versions that the batch has still to bring further."""
    of_group = (versions.c.batch_id == batch.group_id, versions.c.state.in_(STATES_IN[batch.stage]))
    if batch.stage == "embed":  # a part holds the chunks of some of its group's documents
        return (*of_group, versions.c.id.in_(batch.details["versions"]))
    return of_group


def _version_rows() -> sa.Select[Any]:
    named: dict[str, sa.ColumnElement[Any]] = {
        name: versions.c[name] for name in VersionRow.__dataclass_fields__ if name != "source"
    }
    named |= {"source": documents.c.source, "number": sa.func.coalesce(versions.c.number, 0)}
    wanted: sa.Select[Any] = sa.select(*(named[name] for name in VersionRow.__dataclass_fields__))
    return wanted.join(documents, OF_DOCUMENT).order_by(versions.c.id)


_VERSION_ROWS = _version_rows()


def read_versions(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[VersionRow]:
    """Return the versions that meet the conditions, by id."""
    return [VersionRow(*row) for row in connection.execute(_VERSION_ROWS.where(*conditions))]


def hold_versions(connection: Connection, *conditions: sa.ColumnElement[bool]) -> dict[VersionId, JobId]:
    """Return the job of each version that meets the conditions; nobody else changes them until the commit."""
    wanted = sa.select(versions.c.id, versions.c.job_id).where(*conditions).order_by(versions.c.id)
    return {row.id: row.job_id for row in connection.execute(wanted.with_for_update())}


def tried(connection: Connection, batch: Row[Any]) -> Tried:
    """Return how often the documents of a batch were worked on; of a batch in a quarantine, also before that."""
    details = batch.details or {}
    if batch.stage == "index":  # it was made of embed batches, which know what came before
        parts = sa.select(batches.c.details).where(batches.c.group_id == batch.group_id, batches.c.stage == "embed")
        details |= connection.scalar(parts.order_by(batches.c.part).limit(1)) or {}
    before = details.get("attempts", {}).get(batch.stage, 0)
    return Tried(batch.attempts + before, batch.first_attempt_at, batch.last_attempt_at)


def mark_failed(
    connection: Connection, failures: Sequence[FailedDocument], *, stage: str, now: float, tried: Tried = NEVER
) -> None:
    """End these versions as failed, those that are not over already."""
    # Not an IN: its parameters cannot be expanded when one statement runs for many rows.
    unfinished = sa.or_(*(versions.c.state == state for state in UNFINISHED))
    failed = sa.update(versions).where(versions.c.id == sa.bindparam("version"), unfinished)
    failed = failed.values(state="failed", stage=stage, finished_at=now, error_code=sa.bindparam("code"))
    failed = failed.values(error=sa.bindparam("reason"), **asdict(tried))
    if failures:
        rows = [{"version": one.version_id, "code": one.code, "reason": storable(one.error)} for one in failures]
        connection.execute(failed, rows)
