"""Jobs: what one submission became.

Progress is read from the documents themselves, so no counter can be wrong. The job's row adds what they cannot tell:
what the cache saved, and what became of documents whose versions were pruned since.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import Conflict, NotFound
from ..ids import CollectionId, JobId, TenantId
from .cancelling import Cancelled, cancel_rest, cancel_some, slowly
from .completion import UNFINISHED, finish_jobs
from .engine import Catalog
from .history import History, Token
from .outbox import ENDED, tell
from .pace import Pace
from .progress import HeldUp, Progress, Tallies
from .tables import collections, installation, jobs, tenants
from .values import slices

__all__ = ["JobInfo", "cancel_job", "cancelling_steps", "finish_jobs", "get_job", "list_jobs", "read_jobs"]

_NAMED = (
    sa.select(
        jobs,
        collections.c.name.label("collection"),
        tenants.c.paused_at.is_not(None).label("tenant_paused"),
        sa.exists().where(installation.c.paused_at.is_not(None)).label("everything_paused"),
    )
    .join_from(jobs, collections, collections.c.id == jobs.c.collection_id)
    .join(tenants, tenants.c.id == jobs.c.tenant_id)
)


@dataclass(frozen=True)
class JobInfo:
    """One job. ``documents`` counts its document versions by state.

    Chunks are those of documents that are on their way or indexed; ``chunks_total`` grows while documents are chunked.
    ``chunks_expected`` guesses its end; None while no document is cut. ``chunks_reused``: those whose vectors the
    version of the document before had. ``unchanged``: submitted documents that were already here. ``embedded_tokens``:
    of the texts that the model was given, for ``cost_usd``; None: nobody knows their price. ``budget_usd``: more it may
    not cost; None: whatever it costs. ``token``: a search that
    waits for this generation's version sees every document the job has indexed so far; None before the first.
    ``held_up``: why some of it waits although nobody is at fault here, a pause before all; None when nothing does.
    """

    id: JobId
    tenant_id: TenantId
    collection: str
    state: str
    created_at: float
    finished_at: float | None
    documents: Mapping[str, int]
    chunks_total: int
    chunks_embedded: int
    chunks_indexed: int
    chunks_expected: int | None
    cache_hits: int
    chunks_reused: int
    unchanged: int
    embedded_tokens: int
    cost_usd: float | None
    budget_usd: float | None
    pace: Pace | None
    token: Token | None
    held_up: HeldUp | None = None

    def chunks_per_s(self, now: float) -> float | None:
        """Return how fast chunks are embedded; None while nobody can know, and when nothing is under way."""
        return self.pace.per_s(now) if self.pace is not None and self.state == "running" else None

    def left_s(self, now: float) -> float | None:
        """Return how long the embedding of the rest will take at this pace; None while nobody can know.

        Nobody knows how long documents wait that have no chunks, or the writer takes for the last of them.
        """
        per_s = self.chunks_per_s(now)
        if not per_s or self.chunks_expected is None or self.chunks_expected <= self.chunks_embedded:
            return None
        return (self.chunks_expected - self.chunks_embedded) / per_s


def get_job(catalog: Catalog, *, tenant: TenantId, job_id: JobId, tallies: Tallies | None = None) -> JobInfo:
    """Return one job, its documents counted now unless ``tallies`` remembers them. Raises NotFound."""
    with catalog.read() as connection:
        row = connection.execute(_job_rows(tenant).where(jobs.c.id == job_id)).first()
        if row is None:
            raise _not_found(job_id)
        return _described(connection, [row], tallies)[0]


def read_jobs(catalog: Catalog, job_ids: Collection[JobId], *, tallies: Tallies) -> dict[JobId, JobInfo]:
    """Return those of the jobs that are still there, whosever they are: for callers that may see every tenant."""
    with catalog.read() as connection:
        rows = [
            row for some in slices(sorted(job_ids)) for row in connection.execute(_NAMED.where(jobs.c.id.in_(some)))
        ]
        return {info.id: info for info in _described(connection, rows, tallies)}


def list_jobs(
    catalog: Catalog,
    *,
    tenant: TenantId,
    limit: int = 20,
    after: JobId | None = None,
    tallies: Tallies | None = None,
) -> list[JobInfo]:
    """Return up to ``limit`` jobs, newest first; the next page begins ``after`` the last one.

    Raises:
        NotFound: the tenant has no job ``after``.
    """
    wanted = _job_rows(tenant).order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit)
    with catalog.read() as connection:
        if after is not None:
            last = connection.execute(_job_rows(tenant).where(jobs.c.id == after)).first()
            if last is None:
                raise _not_found(after)
            wanted = wanted.where(sa.tuple_(jobs.c.created_at, jobs.c.id) < (last.created_at, last.id))
        return _described(connection, connection.execute(wanted).all(), tallies)


def cancel_job(catalog: Catalog, *, tenant: TenantId, job_id: JobId, now: float) -> JobInfo:
    """Take all `cancelling_steps` and return the job. Raises what they raise."""
    slowly(cancelling_steps(catalog, tenant=tenant, job_id=job_id, now=now))
    return get_job(catalog, tenant=tenant, job_id=job_id)


def cancelling_steps(catalog: Catalog, *, tenant: TenantId, job_id: JobId, now: float) -> Iterator[Cancelled]:
    """Cancel every document of the job that is not finished yet; those already indexed stay. Twice is harmless.

    Each step is one transaction over some thousands, so that nobody waits for a job of a million documents: see
    `cancel_rest`. The first cancels the job itself and what workers hold; nothing
    that is still queued is begun after it. When this process dies in between, `finish_cancelled` goes on. A publish
    that holds a cancelled document fails as a whole and is prepared again without it: none becomes half visible. A
    document is shown as its older version again where that is served or on its way: a delete that was cancelled leaves
    it what it was.

    Raises, at the first step:
        NotFound: the tenant has no such job.
        Conflict: every document of the job is finished already.
    """
    with catalog.write("cancel_job") as connection:
        wanted = sa.select(jobs.c.state, jobs.c.collection_id)
        wanted = wanted.where(jobs.c.id == job_id, jobs.c.tenant_id == tenant)
        job = connection.execute(
            wanted.with_for_update(key_share=True)
        ).first()  # its versions may be touched meanwhile
        if job is None:
            raise _not_found(job_id)
        some = cancel_some(connection, job_id, collection_id=CollectionId(job.collection_id), now=now)
        if not some.documents and job.state != "cancelled":
            raise Conflict(f"job {job_id} cannot be cancelled: it is done")
        cancelled = sa.update(jobs).where(jobs.c.id == job_id, jobs.c.state != "cancelled")
        ended = connection.execute(cancelled.values(state="cancelled", finished_at=now).returning(*ENDED))
        tell(connection, ended.all(), now=now)
    yield some
    if some.more:
        yield from cancel_rest(catalog, job_id, collection_id=CollectionId(job.collection_id), now=now)


def _job_rows(tenant: TenantId) -> sa.Select[Any]:
    return _NAMED.where(jobs.c.tenant_id == tenant)


def _described(connection: Connection, rows: Iterable[Row[Any]], tallies: Tallies | None) -> list[JobInfo]:
    found = list(rows)
    progress = (tallies or Tallies()).read(connection, {row.id: row.state for row in found})
    return [_job(row, progress[row.id]) for row in found]


def _job(row: Row[Any], progress: Progress) -> JobInfo:
    told = History(progress.documents, progress.token) + History.from_details(row.pruned)
    # The stamp may be a moment late; what it would say is already known.
    over = row.state == "running" and not any(progress.documents.get(state) for state in UNFINISHED)
    return JobInfo(
        id=JobId(row.id),
        tenant_id=TenantId(row.tenant_id),
        collection=row.collection,
        state="done" if over else row.state,
        created_at=row.created_at,
        finished_at=row.finished_at,
        documents=told.documents,
        chunks_total=progress.chunks_total,
        chunks_embedded=progress.chunks_embedded,
        chunks_indexed=progress.chunks_indexed,
        chunks_expected=progress.chunks_expected,
        cache_hits=row.cache_hits,
        chunks_reused=row.chunks_reused,
        unchanged=row.unchanged,
        embedded_tokens=row.embedded_tokens,
        cost_usd=row.cost_usd,
        budget_usd=row.budget_usd,
        pace=Pace.from_details(row.pace),
        token=told.token,
        held_up=(_paused(row) or progress.held_up) if row.state == "running" and not over else None,
    )


def _paused(row: Row[Any]) -> HeldUp | None:
    """Return what is told of a job that nobody works on because somebody wants it so."""
    if row.everything_paused:
        return HeldUp(paused=True, reason="everything is paused: `penstock resume --all` ends it", next_attempt_at=None)
    if row.tenant_paused:
        reason = f"tenant {row.tenant_id!r} is paused: `penstock resume --tenant {row.tenant_id}` ends it"
        return HeldUp(paused=True, reason=reason, next_attempt_at=None)
    return None


def _not_found(job_id: JobId) -> NotFound:
    return NotFound(f"there is no job {job_id!r}")
