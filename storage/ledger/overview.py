"""What the ledger looks like right now, for people and for monitoring. Reads only."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.tables import (
    BATCH_STAGES,
    HAS_CACHE_HITS,
    HAS_CHUNKS_REUSED,
    IS_DEAD,
    IS_QUEUED,
    OF_DOCUMENT,
    batches,
    collections,
    documents,
    generations,
    jobs,
    shards,
    versions,
)
from ..ids import GenerationId, JobId, TenantId
from .contents import STATES_IN
from .pauses import Pauses, goes_on, read_pauses

PATIENCE_S = 60.0  # so long work waits for a writer without anybody being missed


@dataclass(frozen=True)
class StageOverview:
    """Batches of one stage by state. ``oldest_at``: when the oldest unfinished one was made; None when none is."""

    ready: int
    sent: int
    running: int
    dead: int
    oldest_at: float | None


@dataclass(frozen=True)
class Overview:
    """``queued`` documents are accepted and in no batch yet. ``running_jobs``: newest first.

    ``embedding_cache_hits`` and ``chunks_reused``: chunks that were not embedded anew, in all jobs there are.
    """

    pauses: Pauses
    queued: int
    oldest_queued_at: float | None
    stages: Mapping[str, StageOverview]
    running_jobs: tuple[tuple[TenantId, JobId], ...]
    embedding_cache_hits: int
    chunks_reused: int


def overview(catalog: Catalog, *, max_jobs: int = 50) -> Overview:
    """Return one consistent look at all of it."""
    with catalog.read() as connection:
        queued, oldest_queued_at = _queued(connection)
        return Overview(
            pauses=read_pauses(connection),
            queued=queued,
            oldest_queued_at=oldest_queued_at,
            stages=_stages(connection),
            running_jobs=_running_jobs(connection, max_jobs=max_jobs),
            embedding_cache_hits=_sum(connection, jobs.c.cache_hits, HAS_CACHE_HITS),
            chunks_reused=_sum(connection, jobs.c.chunks_reused, HAS_CHUNKS_REUSED),
        )


def oldest_waiting(catalog: Catalog) -> dict[tuple[TenantId, str], float]:
    """Return when the oldest work was made that waits for a worker, by tenant and stage; ``queued`` is in no batch yet.

    Reads every open batch, and of the queued documents one per collection.
    """
    oldest = sa.select(batches.c.tenant_id, batches.c.stage, sa.func.min(batches.c.created_at))
    oldest = oldest.where(batches.c.stage.in_(BATCH_STAGES), batches.c.state.in_(("ready", "sent")))
    first = sa.select(sa.func.min(versions.c.id)).where(IS_QUEUED, versions.c.collection_id == collections.c.id)
    firsts = sa.select(first.correlate(collections).scalar_subquery()).select_from(collections)
    queued = sa.select(versions.c.tenant_id, sa.func.min(versions.c.created_at))
    queued = queued.where(versions.c.id.in_(firsts)).group_by(versions.c.tenant_id)
    with catalog.read() as connection:
        rows = connection.execute(oldest.group_by(batches.c.tenant_id, batches.c.stage)).all()
        found = {(TenantId(tenant), stage): made_at for tenant, stage, made_at in rows}
        return found | {(TenantId(tenant), "queued"): at for tenant, at in connection.execute(queued)}


def dead_documents(catalog: Catalog) -> dict[str, int]:
    """Return how many documents are dead, by the stage in which they died. Reads a row for each."""
    dead = sa.select(versions.c.stage, sa.func.count()).join(documents, OF_DOCUMENT)
    dead = dead.where(IS_DEAD, versions.c.number == documents.c.newest).group_by(versions.c.stage)
    with catalog.read() as connection:
        return dict.fromkeys(STATES_IN, 0) | dict(map(tuple, connection.execute(dead)))


def unwritten_shards(catalog: Catalog, *, now: float) -> list[int]:
    """Return the shards for whose writer work has waited for a minute, while nobody holds the lease."""
    since = now - PATIENCE_S
    waits = (batches.c.state.in_(("ready", "sent")), batches.c.created_at < since, batches.c.next_attempt_at < since)
    held = sa.exists().where(shards.c.shard == batches.c.shard, shards.c.expires_at > now)
    found = sa.select(batches.c.shard).where(batches.c.stage == "index", *waits, goes_on(batches.c.tenant_id), ~held)
    with catalog.read() as connection:
        return sorted(connection.scalars(found.distinct()))


def neglected_stages(catalog: Catalog, *, now: float) -> list[str]:
    """Return those of the stages chunk and embed in which work that is due has waited for a minute."""
    since = now - PATIENCE_S
    waits = (batches.c.state.in_(("ready", "sent")), batches.c.created_at < since, batches.c.next_attempt_at < since)
    found = sa.select(batches.c.stage).where(batches.c.stage.in_(("chunk", "embed")), *waits)
    with catalog.read() as connection:
        return sorted(connection.scalars(found.where(goes_on(batches.c.tenant_id)).distinct()))


@dataclass(frozen=True)
class OpenMerge:
    """A merge on its way: in ``stage`` merge it is being built, in stage swap it waits for the writer."""

    stage: str
    state: str
    segments: int
    attempts: int
    created_at: float
    error: str | None


def open_merges(catalog: Catalog, generation_id: GenerationId) -> list[OpenMerge]:
    """Return the merges of a generation that are not over."""
    wanted = sa.select(batches).where(batches.c.generation_id == generation_id, batches.c.stage.in_(("merge", "swap")))
    with catalog.read() as connection:
        rows = connection.execute(wanted.where(batches.c.state.in_(OPEN_BATCH)).order_by(batches.c.id)).all()
    return [
        OpenMerge(row.stage, row.state, _inputs(row.details), row.attempts, row.created_at, row.error) for row in rows
    ]


def _inputs(details: Mapping[str, Any] | None) -> int:
    found = details or {}
    return len(found.get("inputs", found.get("segments", ())))


def models_in_use(catalog: Catalog) -> list[tuple[str, int]]:
    """Return the embedding models of all active generations: name and dimensions."""
    with catalog.read() as connection:
        active = generations.c.state == "active"
        found = sa.select(generations.c.model, generations.c.dimensions).where(active).distinct()
        return sorted((model, dimensions) for model, dimensions in connection.execute(found))


def _sum(connection: Connection, column: sa.Column[int], has_some: sa.ColumnElement[bool]) -> int:
    return int(connection.scalar(sa.select(sa.func.sum(column)).where(has_some)) or 0)


def _queued(connection: Connection) -> tuple[int, float | None]:
    counted = sa.select(sa.func.count(), sa.func.min(versions.c.id)).where(IS_QUEUED)
    count, oldest = connection.execute(counted).one()  # ids sort by age, and the index holds them
    made = sa.select(versions.c.created_at).where(versions.c.id == oldest)
    return count, connection.scalar(made) if oldest else None


def _stages(connection: Connection) -> dict[str, StageOverview]:
    counted = sa.select(batches.c.stage, batches.c.state, sa.func.count().label("batches"))
    states = (*OPEN_BATCH, "dead")
    counted = counted.where(batches.c.stage.in_(BATCH_STAGES), batches.c.state.in_(states))
    counts = {
        (row.stage, row.state): row.batches
        for row in connection.execute(counted.group_by(batches.c.stage, batches.c.state))
    }
    oldest = sa.select(batches.c.stage, sa.func.min(batches.c.created_at).label("made_at"))
    oldest = oldest.where(batches.c.stage.in_(BATCH_STAGES), batches.c.state.in_(OPEN_BATCH)).group_by(batches.c.stage)
    ages = {row.stage: row.made_at for row in connection.execute(oldest)}
    return {
        stage: StageOverview(
            oldest_at=ages.get(stage),
            **{state: counts.get((stage, state), 0) for state in ("ready", "sent", "running", "dead")},
        )
        for stage in BATCH_STAGES
    }


def _running_jobs(connection: Connection, *, max_jobs: int) -> tuple[tuple[TenantId, JobId], ...]:
    if not max_jobs:
        return ()
    found = sa.select(jobs.c.tenant_id, jobs.c.id).where(jobs.c.state == "running")
    rows = connection.execute(found.order_by(jobs.c.id.desc()).limit(max_jobs))
    return tuple((TenantId(row.tenant_id), JobId(row.id)) for row in rows)
