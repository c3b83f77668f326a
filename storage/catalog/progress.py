"""How far the documents of some jobs came: two grouped reads, whatever the number of documents.

Only what is being embedded is looked up in the batches; what is over stays true when its batches are gone.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .history import Token, newest
from .tables import batches, versions
from .values import slices


@dataclass(frozen=True)
class Progress:
    documents: Mapping[str, int]
    chunks_total: int
    chunks_embedded: int
    chunks_indexed: int
    token: Token | None


@dataclass(frozen=True)
class _Group:
    """The embed batches of one group, which may hold documents of several jobs."""

    chunks: int
    embedded: int

    def embedded_of(self, chunks: int) -> float:
        return self.embedded * chunks / self.chunks if self.chunks else 0.0


def read_progress(connection: Connection, job_ids: Sequence[str]) -> dict[str, Progress]:
    """Return the progress of each job; a job without documents has an empty one."""
    by_job: dict[str, list[Row[Any]]] = {job_id: [] for job_id in job_ids}
    for some in slices(list(job_ids)):
        for row in connection.execute(_versions_by_group(some)):
            by_job[row.job_id].append(row)
    embedding = {row.batch_id for rows in by_job.values() for row in rows if row.state == "embedding"}
    groups = _read_groups(connection, sorted(embedding))
    return {job_id: _progress(rows, groups) for job_id, rows in by_job.items()}


def _versions_by_group(job_ids: Sequence[str]) -> sa.Select[Any]:
    key = (versions.c.job_id, versions.c.state, versions.c.batch_id, versions.c.generation_id)
    counted = (
        sa.func.count().label("documents"),
        sa.func.coalesce(sa.func.sum(versions.c.chunk_count), 0).label("chunks"),
        sa.func.max(versions.c.indexed_version).label("indexed_version"),
    )
    # ix_versions_progress covers this read.
    return sa.select(*key, *counted).where(versions.c.job_id.in_(job_ids)).group_by(*key)


def _read_groups(connection: Connection, group_ids: Sequence[str]) -> dict[str, _Group]:
    embedded = sa.case((batches.c.state == "done", batches.c.chunk_count), else_=0)
    sums = (sa.func.sum(batches.c.chunk_count), sa.func.sum(embedded))
    grouped = sa.select(batches.c.group_id, *sums).where(batches.c.stage == "embed")
    found: dict[str, _Group] = {}
    for some in slices(group_ids):
        rows = connection.execute(grouped.where(batches.c.group_id.in_(some)).group_by(batches.c.group_id))
        found |= {group_id: _Group(int(chunks), int(done)) for group_id, chunks, done in rows}
    return found


def _progress(rows: Sequence[Row[Any]], groups: Mapping[str, _Group]) -> Progress:
    documents: dict[str, int] = defaultdict(int)
    chunks: dict[str, int] = defaultdict(int)
    half_embedded = 0.0
    token: Token | None = None
    for row in rows:
        documents[row.state] += row.documents
        chunks[row.state] += int(row.chunks)
        if row.state == "embedding" and row.batch_id in groups:
            half_embedded += groups[row.batch_id].embedded_of(int(row.chunks))
        if row.indexed_version is not None:
            token = newest(token, (row.generation_id, row.indexed_version))
    past = chunks["indexing"] + chunks["indexed"]
    return Progress(
        documents=dict(documents),
        chunks_total=chunks["embedding"] + past,
        chunks_embedded=past + round(half_embedded),
        chunks_indexed=chunks["indexed"],
        token=token,
    )
