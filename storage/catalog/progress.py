"""How far the documents of some jobs came: two grouped reads, whatever the number of documents.

Only what is being embedded is looked up in the batches; what is over stays true when its batches are gone. A job of a
million documents takes a while to count, so that is not done at each look: see `Tallies`.
"""

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from .completion import OPEN_BATCH
from .history import Token, newest
from .tables import GOES_ON_BY_ITSELF, batches, versions
from .values import slices


@dataclass(frozen=True)
class HeldUp:
    """Why something of a job waits by no fault of its documents: ``paused`` until a person has acted, or retried.

    ``ordered``: it is neither, but waits for an order at the provider. ``next_attempt_at``: when it is tried again at
    the earliest; in the past while it is being tried; None: not before the job's budget is raised, or the order over.
    """

    paused: bool
    reason: str
    next_attempt_at: float | None
    ordered: bool = False

    @classmethod
    def of(cls, word: str, reason: str, next_attempt_at: float | None) -> "HeldUp":
        """Return what a batch is told whose word of `POSTPONED` this is."""
        unknown = word in ("job_budget", "waits_for_order")
        paused = word not in GOES_ON_BY_ITSELF
        return cls(paused, reason, None if unknown else next_attempt_at, ordered=word == "waits_for_order")


@dataclass(frozen=True)
class Progress:
    documents: Mapping[str, int]
    chunks_total: int
    chunks_embedded: int
    chunks_indexed: int
    chunks_expected: int | None
    token: Token | None
    held_up: HeldUp | None = None


_UNCUT = ("queued", "chunking")
_CUT = ("embedding", "indexing", "indexed")
_IN_BATCHES = ("chunking", "embedding", "indexing", "deleting", "trimming")
CHEAP_S = 0.02
COUNTING_SHARE = 20.0
REMEMBERED = 1_000  # jobs


class Tallies:
    """Counts the documents of jobs, and tells the same again for twenty times as long as the counting took.

    So a look costs at most a twentieth of the time, however many ask and however large the job. What is cheap to count
    is counted at each look, and what has ended since is counted anew. One per process; safe between threads.
    """

    def __init__(self, *, cheap_s: float = CHEAP_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._cheap_s = cheap_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def read(self, connection: Connection, states: Mapping[str, str]) -> dict[str, Progress]:
        """Return the progress of each job. ``states``: the state that its row has now, by job."""
        known = self._remembered(states)
        began = self._clock()
        counted = read_progress(connection, [job_id for job_id in states if job_id not in known])
        ended = self._clock()
        if ended - began > self._cheap_s:
            self._remember(counted, states, until=ended + COUNTING_SHARE * (ended - began))
        return known | counted

    def _remembered(self, states: Mapping[str, str]) -> dict[str, Progress]:
        now = self._clock()
        with self._lock:
            found = {job_id: self._known[job_id] for job_id in states if job_id in self._known}
        return {
            job_id: one.progress for job_id, one in found.items() if one.state == states[job_id] and now < one.until
        }

    def _remember(self, counted: Mapping[str, Progress], states: Mapping[str, str], *, until: float) -> None:
        with self._lock:
            for job_id, progress in counted.items():
                self._known[job_id] = _Known(states[job_id], progress, until)
                self._known.move_to_end(job_id)
            while len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


@dataclass(frozen=True)
class _Known:
    state: str
    progress: Progress
    until: float


@dataclass(frozen=True)
class _Group:
    """The chunks of one group's embed batches, which may be of several jobs' documents, and what holds it up.

    ``held_up``: the word of `POSTPONED` and the reason, of a batch that waits.
    """

    chunks: int
    embedded: int
    held_up: str | None
    next_attempt_at: float | None

    def embedded_of(self, chunks: int) -> float:
        return self.embedded * chunks / self.chunks if self.chunks else 0.0


def read_progress(connection: Connection, job_ids: Sequence[str]) -> dict[str, Progress]:
    """Return the progress of each job; a job without documents has an empty one."""
    by_job: dict[str, list[Row[Any]]] = {job_id: [] for job_id in job_ids}
    for some in slices(list(job_ids)):
        for row in connection.execute(_versions_by_group(some)):
            by_job[row.job_id].append(row)
    under_way = {row.batch_id for rows in by_job.values() for row in rows if row.batch_id and row.state in _IN_BATCHES}
    groups = _read_groups(connection, sorted(under_way))
    return {job_id: _progress(rows, groups) for job_id, rows in by_job.items()}


def _versions_by_group(job_ids: Sequence[str]) -> sa.Select[Any]:
    key = (versions.c.job_id, versions.c.state, versions.c.batch_id, versions.c.generation_id)
    counted = (
        sa.func.count().label("documents"),
        sa.func.coalesce(sa.func.sum(versions.c.chunk_count), 0).label("chunks"),
        sa.func.max(versions.c.indexed_version).label("indexed_version"),
        sa.func.coalesce(sa.func.sum(versions.c.size_bytes), 0).label("size_bytes"),
    )
    # ix_versions_progress covers this read.
    return sa.select(*key, *counted).where(versions.c.job_id.in_(job_ids)).group_by(*key)


def _read_groups(connection: Connection, group_ids: Sequence[str]) -> dict[str, _Group]:
    of_embedding = batches.c.stage == "embed"
    chunks = sa.case((of_embedding, batches.c.chunk_count), else_=0)
    embedded = sa.case((of_embedding & (batches.c.state == "done"), batches.c.chunk_count), else_=0)
    waits = sa.and_(batches.c.postponed.is_not(None), batches.c.state.in_(OPEN_BATCH))
    told = batches.c.postponed + ":" + sa.func.coalesce(batches.c.error, "")  # the least is one that is paused
    held_up = (sa.func.min(sa.case((waits, told))), sa.func.min(sa.case((waits, batches.c.next_attempt_at))))
    grouped = sa.select(batches.c.group_id, sa.func.sum(chunks), sa.func.sum(embedded), *held_up)
    found: dict[str, _Group] = {}
    for some in slices(group_ids):
        rows = connection.execute(grouped.where(batches.c.group_id.in_(some)).group_by(batches.c.group_id))
        found |= {group_id: _Group(int(total), int(done), *held) for group_id, total, done, *held in rows}
    return found


def _progress(rows: Sequence[Row[Any]], groups: Mapping[str, _Group]) -> Progress:
    documents: dict[str, int] = defaultdict(int)
    chunks: dict[str, int] = defaultdict(int)
    sizes: dict[str, int] = defaultdict(int)
    half_embedded = 0.0
    held_up: list[tuple[str, float]] = []
    token: Token | None = None
    for row in rows:
        documents[row.state] += row.documents
        chunks[row.state] += int(row.chunks)
        sizes[row.state] += int(row.size_bytes)
        if row.state in _IN_BATCHES and row.batch_id in groups:
            group = groups[row.batch_id]
            half_embedded += group.embedded_of(int(row.chunks)) if row.state == "embedding" else 0.0
            held_up += [(group.held_up, group.next_attempt_at or 0.0)] if group.held_up else []
        if row.indexed_version is not None:
            token = newest(token, (row.generation_id, row.indexed_version))
    past = chunks["indexing"] + chunks["indexed"]
    total = chunks["embedding"] + past
    return Progress(
        documents=dict(documents),
        chunks_total=total,
        chunks_embedded=past + round(half_embedded),
        chunks_indexed=chunks["indexed"],
        chunks_expected=_expected(total, documents, sizes),
        token=token,
        held_up=_held_up(held_up),
    )


def _held_up(found: Sequence[tuple[str, float]]) -> HeldUp | None:
    """Return the one that a person should know of: what is paused sorts before what is retried, or ordered."""
    if not found:
        return None
    told, next_attempt_at = min(found)
    word, _, reason = told.partition(":")
    return HeldUp.of(word, reason, next_attempt_at)


def _expected(chunks: int, documents: Mapping[str, int], sizes: Mapping[str, int]) -> int | None:
    """Guess all chunks there will be: as many in each byte that is not cut yet as in those that are. None: no idea."""
    if not any(documents.get(state) for state in _UNCUT):
        return chunks
    cut_bytes = sum(sizes.get(state, 0) for state in _CUT)
    if not cut_bytes or not chunks:
        return None
    return chunks + round(chunks * sum(sizes.get(state, 0) for state in _UNCUT) / cut_bytes)
