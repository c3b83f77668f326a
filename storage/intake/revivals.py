"""Retries dead documents from the bytes that are stored, and drops those that somebody gives up.

A slice is one transaction, in which the documents are held: whoever submits one anew meanwhile wins. Done twice, the
second time finds nothing dead. A retry makes no version: the dead one goes on its way again, in a job of the retry; the
job in which it died goes on counting it as failed.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount, count_came
from ..catalog.batches import ready_batch
from ..catalog.engine import Catalog
from ..catalog.history import History, keep_histories
from ..catalog.tables import OF_DOCUMENT, batches, documents, jobs, versions
from ..catalog.values import slices, storable_names
from ..ids import BatchId, CollectionId, GenerationId, JobId, TenantId, new_id
from ..objects.store import ObjectStore
from .acceptance import Target, open_writers_batch, record_job
from .verdicts import ALIVE, Packs, Refusal, newest, others, refusals

AT_ONCE = 500  # documents in one transaction, in which nobody else writes on SQLite
SAMPLE = 10
ALONE = "worker_lost"  # what died of this starts again alone, where it can hurt no others


@dataclass
class Revived:
    """What became of the documents that were named: ``done`` of them, the others ``refused``, counted by code.

    ``ids``: of all that were done; ``sample``: (id, source) of a few of them; ``refusals``: a few that were not.
    """

    done: int = 0
    job_id: JobId | None = None
    refused: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    sample: list[tuple[str, str]] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def add(self, rows: Sequence[Row[Any]], refusals: Sequence[Refusal]) -> None:
        self.done += len(rows)
        self.ids += [row.document_id for row in rows]
        self.refused.update(one.code for one in refusals)
        self.sample = [*self.sample, *((row.document_id, row.source) for row in rows)][:SAMPLE]
        self.refusals = [*self.refusals, *refusals][:SAMPLE]


def retry_documents(
    catalog: Catalog,
    objects: ObjectStore,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    document_ids: Collection[str],
    now: float,
    dry_run: bool = False,
) -> Revived:
    """Send these dead documents on their way again, as one job; where none could be sent, there is no job.

    Their attempts begin anew; what they died of before is kept until they are indexed. ``dry_run`` changes nothing.

    Raises:
        NotFound: the tenant has no such collection.
        Conflict: the job was cancelled before the last slice.
        Unavailable: the catalog did not answer. The same call again does what is left.
    """
    target = Target(tenant, collection_id, generation_id, now)
    revived = Revived()
    for some in slices(storable_names(document_ids), AT_ONCE):
        packs = Packs(objects)
        with catalog.read() as connection:  # first: a bucket is asked over the network, and others want to write
            packs.look(newest(connection, target, some, hold=False)[1])
        while not _retry_some(catalog, target, some, packs=packs, revived=revived, dry_run=dry_run):
            pass
    return revived


def _retry_some(
    catalog: Catalog, target: Target, document_ids: Sequence[str], *, packs: Packs, revived: Revived, dry_run: bool
) -> bool:
    """Retry these in one transaction. False: nothing was done, for one died since the look; its pack is known now."""
    with _transaction(catalog, "retry", dry_run=dry_run) as connection:
        target, rows = newest(connection, target, document_ids, hold=not dry_run, job_id=revived.job_id)
        if packs.know(rows):
            refused = refusals(rows, document_ids, bytes_lost=packs.lost)
            able = others(rows, refused)
            if able and not dry_run:
                revived.job_id = record_job(connection, target, revived.job_id, opened=True, unchanged=0)
                _start_again(connection, target, able, job_id=revived.job_id)
            revived.add(able, refused)
            return True
    packs.look(rows)
    return False


def drop_documents(
    catalog: Catalog,
    *,
    tenant: TenantId,
    collection_id: CollectionId,
    generation_id: GenerationId,
    document_ids: Collection[str],
    now: float,
    dry_run: bool = False,
) -> Revived:
    """Give these dead documents up: their dead version is ``dropped``, and keeps neither bytes nor metadata.

    A document is shown as its older version again, where that is served or on its way; it is untouched. One without any
    is in its collection no more.

    Raises:
        NotFound: the tenant has no such collection.
        Unavailable: the catalog did not answer. The same call again does what is left.
    """
    target = Target(tenant, collection_id, generation_id, now)
    dropped = Revived()
    for some in slices(storable_names(document_ids), AT_ONCE):
        with _transaction(catalog, "drop", dry_run=dry_run) as connection:
            _, rows = newest(connection, target, some, hold=not dry_run)
            refused = refusals(rows, some, bytes_lost=None)
            able = others(rows, refused)
            if not dry_run:
                _drop(connection, target, able)
        dropped.add(able, refused)
    return dropped


def _transaction(catalog: Catalog, what: str, *, dry_run: bool) -> AbstractContextManager[Connection]:
    return catalog.read() if dry_run else catalog.write(what)


def _start_again(connection: Connection, target: Target, rows: Sequence[Row[Any]], *, job_id: JobId) -> None:
    """Let the versions begin as they did when they were accepted, in the job of this retry."""
    _keep_counts(connection, rows)
    alone = {row.id: new_id("batch") for row in rows if row.action == "put" and row.error_code == ALONE}
    if alone:
        made = [_batch(target, row, batch_id=alone[row.id]) for row in rows if row.id in alone]
        connection.execute(sa.insert(batches), made)
    waiting = [row for row in rows if row.action != "put"]  # without bytes of their own: they wait for the writer
    writers = ""
    if waiting:
        chunks = sum(row.chunk_count or 0 for row in waiting)
        writers = open_writers_batch(connection, target, document_count=len(waiting), chunk_count=chunks)
    forgotten = dict.fromkeys(
        ("stage", "error_code", "error", "attempts", "first_attempt_at", "last_attempt_at", "finished_at")
    )
    again = sa.update(versions).where(versions.c.id == sa.bindparam("version"), versions.c.state == "failed")
    again = again.values(
        {
            **forgotten,
            "state": sa.bindparam("becomes"),
            "batch_id": sa.bindparam("batch"),
            "chunk_count": sa.bindparam("chunks"),
            "former_death": sa.bindparam("death", type_=versions.c.former_death.type),
            "job_id": job_id,
            "generation_id": target.generation_id,
            "indexed_version": None,
        }
    )
    connection.execute(again, [_begun(row, alone=alone, writers=writers) for row in rows])
    queued = [row.size_bytes for row in rows if row.action == "put" and row.id not in alone]
    count_came(connection, target.tenant, Amount(len(queued), sum(queued)))


def _begun(row: Row[Any], *, alone: Mapping[str, str], writers: str) -> dict[str, Any]:
    death = {name: row._mapping[name] for name in _DEATH}  # noqa: SLF001 - SQLAlchemy's public name
    former = row.former_death or {}
    told = {**death, "died_at": row.finished_at, "retries": former.get("retries", 0) + 1}
    if row.action == "put":
        batch = alone.get(row.id)
        return {
            "version": row.id,
            "becomes": "chunking" if batch else "queued",
            "batch": batch,
            "chunks": None,
            "death": told,
        }
    becomes = "deleting" if row.action == "delete" else "indexing"
    return {"version": row.id, "becomes": becomes, "batch": writers, "chunks": row.chunk_count, "death": told}


_DEATH = ("stage", "error_code", "error", "attempts", "first_attempt_at", "last_attempt_at")


def _batch(target: Target, row: Row[Any], *, batch_id: str) -> dict[str, Any]:
    return ready_batch(
        "chunk",
        tenant=target.tenant,
        generation_id=target.generation_id,
        shard=target.shard,
        now=target.now,
        batch_id=BatchId(batch_id),
        priority=row.priority,
        document_count=1,
        size_bytes=row.size_bytes,
        details={"quarantined": True},
    )


def _keep_counts(connection: Connection, rows: Sequence[Row[Any]]) -> None:
    """Let the jobs in which these died go on saying so, though the versions leave them; the caller holds the jobs."""
    died = Counter(row.job_id for row in rows)
    former = sa.select(jobs.c.id, jobs.c.pruned).where(jobs.c.id.in_(sorted(died)))
    told = {
        job.id: History.from_details(job.pruned) + History({"failed": died[job.id]})
        for job in connection.execute(former)
    }
    keep_histories(connection, told)


def _drop(connection: Connection, target: Target, rows: Sequence[Row[Any]]) -> None:
    ids = [row.id for row in rows]
    if not ids:
        return
    # Which document it was stays until the row is pruned, and why it was dead.
    forgotten: dict[str, Any] = {"title": None, "metadata": {}, "event_time": None, "expires_at": None, "pack": ""}
    dropped = sa.update(versions).where(versions.c.id.in_(ids))
    connection.execute(dropped.values(**forgotten, size_bytes=0, state="dropped", finished_at=target.now))
    older = sa.select(sa.func.max(versions.c.number)).where(OF_DOCUMENT, versions.c.state.in_(ALIVE)).scalar_subquery()
    shown = sa.update(documents).where(documents.c.collection_id == target.collection_id, older.is_not(None))
    connection.execute(shown.where(documents.c.id.in_([row.document_id for row in rows])).values(newest=older))
