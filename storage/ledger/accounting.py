"""What embedding a batch brought, for the jobs whose documents are in it. Part of its last transaction."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.pace import Pace
from ..catalog.tables import jobs, versions
from ..catalog.values import slices
from ..ids import JobId
from .claims import Claim

_add = sa.update(jobs).where(jobs.c.id == sa.bindparam("job"))
_add = _add.values(
    cache_hits=jobs.c.cache_hits + sa.bindparam("more_hits"),
    chunks_reused=jobs.c.chunks_reused + sa.bindparam("more_reused"),
    pace=sa.bindparam("moved"),
)
_PACES = (
    sa.select(jobs.c.id, jobs.c.pace)
    .where(jobs.c.id.in_(sa.bindparam("jobs", expanding=True)))
    .order_by(jobs.c.id)
    .with_for_update(key_share=True)
)


@dataclass(frozen=True)
class Embedded:
    """``cache_hits`` of ``chunks`` were in the cache."""

    chunks: int
    cache_hits: int


def share_among_jobs(
    connection: Connection, claim: Claim, embedded: Embedded, *, reused: Mapping[JobId, int], now: float
) -> None:
    """Add to each job its share by chunks, and move its pace on; the shares add up to all.

    ``reused``: the chunks of each job whose vectors the index had already.
    Call it before any batch is locked: jobs come first in every transaction.
    """
    chunks = _chunks_by_job(connection, claim)
    held = connection.execute(_PACES, {"jobs": list(chunks)})
    paces = {row.id: Pace.from_details(row.pace) for row in held}
    rows = []
    for job_id, share in _shares(chunks, embedded):
        pace = paces.get(job_id)
        moved = pace.after(share.chunks, now=now) if pace else Pace.begun(now)
        more = {"more_hits": share.cache_hits, "more_reused": reused.get(job_id, 0)}
        rows.append({"job": job_id, "moved": moved.to_details(), **more})
    if rows:
        connection.execute(_add, rows)


def _chunks_by_job(connection: Connection, claim: Claim) -> dict[JobId, int]:
    only = {version.job_id for version in claim.versions}
    if len(only) == 1:  # which has it all
        return dict.fromkeys(only, 1)
    counted = sa.select(versions.c.job_id, sa.func.sum(versions.c.chunk_count)).group_by(versions.c.job_id)
    chunks: dict[JobId, int] = defaultdict(int)
    for some in slices([version.id for version in claim.versions]):
        for job_id, count in connection.execute(counted.where(versions.c.id.in_(some))):
            chunks[job_id] += int(count or 0)
    return chunks


def _shares(chunks: Mapping[JobId, int], embedded: Embedded) -> Iterator[tuple[JobId, Embedded]]:
    total = sum(chunks.values()) or 1
    past = 0
    for job_id in sorted(chunks):
        before, past = past, past + chunks[job_id]

        def part(whole: int, *, before: int = before, past: int = past) -> int:
            return whole * past // total - whole * before // total

        yield job_id, Embedded(part(embedded.chunks), part(embedded.cache_hits))
