"""Slices: the documents that are copied together, as batches that hold no versions. What differs is cut into them.

Parts of one group are published together. A batch stays until its chunks are published, for as long as that takes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.batches import PAUSED_FROM, ready_batch
from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.followers import wake
from ..catalog.sweeps import guard_of_tenant
from ..catalog.tables import ECONOMY, PRIORITIES, batches, reembeddings
from ..catalog.tenants import hold_tenant
from ..catalog.values import slices, storable
from ..costs import Bill, settle_bill
from ..grace import Lookout, check_not_collected, check_there
from ..ids import BatchId, new_id
from ..ledger.claims import Claim, end
from ..objects.store import ObjectStore
from ..segments.differences import Change
from .records import ReembeddingInfo, hold_reembedding

LOW = PRIORITIES.index("low")
MAX_DOCUMENTS = 256
FAR_AWAY = 10 * PAUSED_FROM  # when a batch of a paused re-embedding is tried again


@dataclass(frozen=True)
class Slice:
    """What one batch is to copy, of version ``manifest`` (an object) of the source.

    ``documents``: all chunks of these; or, of one large document, its chunks from ``rows[0]`` up to ``rows[1]``.
    ``removed``: documents that are to leave the target. ``known``: the target may have older chunks of these documents.
    """

    manifest: str
    documents: Sequence[str] = ()
    removed: Sequence[str] = ()
    rows: Sequence[int] | None = None
    known: bool = False
    chunks: int = 0
    size_bytes: int = 0

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> "Slice":
        return cls(**details["slice"])


@dataclass
class _Gathering:
    """The documents of the next slice."""

    documents: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    chunks: int = 0
    size_bytes: int = 0

    def is_full(self, *, part_chunks: int, more: int) -> bool:
        count = len(self.documents) + len(self.removed)
        return bool(self.documents) and (self.chunks + more > part_chunks or count >= MAX_DOCUMENTS)


def cut_slices(
    changes: Iterable[Change], *, manifest: str, part_chunks: int, recuts: bool, known: bool = False
) -> Iterator[list[Slice]]:
    """Yield the parts of each group: documents of up to ``part_chunks`` chunks together, or a large one in parts.

    ``recuts``: how many chunks there will be nobody knows yet, so that each group has one part.
    """
    gathering = _Gathering()
    for change in changes:
        served = change.after
        if served is None:
            gathering.removed.append(change.document.document_id)
            continue
        if served.chunks > part_chunks and not recuts:
            yield [
                Slice(manifest, [change.document.document_id], rows=[first, stop], known=known, chunks=stop - first)
                for first, stop in _spans(served.chunks, part_chunks)
            ]
            continue
        if gathering.is_full(part_chunks=part_chunks, more=served.chunks):
            yield [Slice(manifest, known=known, **asdict(gathering))]
            gathering = _Gathering()
        gathering.documents.append(change.document.document_id)
        gathering.chunks += served.chunks
        gathering.size_bytes += served.document.original["size_bytes"] if served.document.original else 0
    if gathering.documents or gathering.removed:
        yield [Slice(manifest, known=known, **asdict(gathering))]


def _spans(chunks: int, most: int) -> Iterator[tuple[int, int]]:
    return ((first, min(first + most, chunks)) for first in range(0, chunks, most))


def insert_slices(
    connection: Connection, info: ReembeddingInfo, groups: Iterable[Sequence[Slice]], *, stage: str, now: float
) -> int:
    """Make the batches of these groups, ready to be claimed for ``stage``. Returns how many chunks they are about.

    What only removes documents has nothing to embed, and is done.
    """
    rows: list[dict[str, Any]] = []
    for group in groups:
        group_id = new_id("group")
        for part, one in enumerate(group):
            row = _batch(info, stage, group_id, part, now=now, chunk_count=one.chunks, size_bytes=one.size_bytes)
            row |= {"document_count": len(one.documents), "details": {"slice": asdict(one)}}
            rows.append(row | ({} if one.documents else {"state": "done", "finished_at": now}))
    if rows:
        connection.execute(sa.insert(batches), rows)
    return sum(row["chunk_count"] for row in rows)


def _batch(
    info: ReembeddingInfo, stage: str, group_id: str, part: int, *, now: float, chunk_count: int, size_bytes: int
) -> dict[str, Any]:
    values: dict[str, Any] = {"document_count": 0, "finished_at": None, "input": None, "part": part}
    row = ready_batch(
        stage,
        tenant=info.tenant_id,
        generation_id=info.target.id,
        shard=info.target.shard,
        now=now,
        reembedding_id=info.id,
        priority=ECONOMY if info.is_ordered else LOW,
        chunk_count=chunk_count,
        size_bytes=size_bytes,
        **values,
    )
    return row | {"group_id": group_id}


@dataclass(frozen=True)
class Cut:
    """A staged object of chunks that were cut anew, to become an embed batch of the group of its slice."""

    batch_id: BatchId
    input: str
    chunk_count: int
    size_bytes: int


def finish_cutting(catalog: Catalog, objects: ObjectStore, claim: Claim, *, parts: Sequence[Cut], now: float) -> None:
    """End the batch that cut a slice anew: its parts are to be embedded.

    Raises:
        Conflict: the claim was lost, or what was staged was collected; nothing was changed.
        NotFound: the re-embedding is no more.
    """
    assert claim.reembedding_id is not None
    since = Lookout.begin(catalog, guard_of_tenant(claim.tenant_id))
    check_there(objects, [part.input for part in parts])
    with catalog.write("finish_cutting") as connection:
        hold_tenant(connection, claim.tenant_id)  # before all others, as everywhere; collectors wait for it
        info = hold_reembedding(connection, claim.reembedding_id)
        end(connection, claim, state="done", now=now, error=None)
        check_not_collected(connection, objects, [part.input for part in parts], since=since)
        rows = []
        for number, part in enumerate(parts):
            sizes = {"chunk_count": part.chunk_count, "size_bytes": part.size_bytes}
            row = _batch(info, "embed", claim.group_id, number, now=now, **sizes)
            rows.append(row | {"id": part.batch_id, "input": part.input, "details": {}})
        if rows:
            connection.execute(sa.insert(batches), rows)
        wake(connection, info.id, at=now)


@dataclass(frozen=True)
class Spared:
    """Chunks of a slice that were not embedded: found in the cache, or ``reused`` from the target."""

    cache_hits: int = 0
    reused: int = 0


def finish_slice(
    catalog: Catalog, claim: Claim, *, chunks: str, vectors: str, spared: Spared, bill: Bill, now: float
) -> None:
    """End an embed batch of a slice with its staging objects, which stay until they are published.

    ``bill``: of this attempt; it is settled with it.

    Raises:
        Conflict: the claim was lost; nothing was changed. NotFound: the re-embedding is no more.
    """
    assert claim.reembedding_id is not None
    counts = reembeddings.c
    with catalog.write("finish_slice") as connection:
        settle_bill(connection, bill)  # what costs comes first in every transaction
        hold_reembedding(connection, claim.reembedding_id)
        end(connection, claim, state="done", now=now, input=chunks, output=vectors, error=None, postponed=None)
        hits, reused = counts.cache_hits + spared.cache_hits, counts.chunks_reused + spared.reused
        mine = sa.update(reembeddings).where(counts.id == claim.reembedding_id)
        connection.execute(mine.values(cache_hits=hits, chunks_reused=reused))
        wake(connection, claim.reembedding_id, at=now)
    bill.close(settled=True)


def fail_slice(catalog: Catalog, claim: Claim, *, error: str, now: float) -> None:
    """Give a slice up that would fail at every attempt. Raises Conflict when the claim was lost."""
    assert claim.reembedding_id is not None
    with catalog.write("fail_slice") as connection:
        end(connection, claim, state="dead", now=now, error=storable(error))
        wake(connection, claim.reembedding_id, at=now)


@dataclass(frozen=True)
class EndedGroup:
    """A group that waits to be published. ``parts``: pairs of staging objects (chunks, vectors), in order.

    ``documents``: all that it is about, those that leave the target included.
    """

    group_id: str
    parts: Sequence[tuple[str, str]]
    documents: Sequence[str]
    chunks: int


@dataclass(frozen=True)
class OnTheirWay:
    """What there is of slices: parts that are ``open``, groups that ended, and what was given up, a check included."""

    open: int
    ended: Sequence[EndedGroup]
    dead: Sequence[Row[Any]]

    @property
    def ended_chunks(self) -> int:
        return sum(group.chunks for group in self.ended)


def read_slices(connection: Connection, reembedding_id: str) -> OnTheirWay:
    """Return all slices of a re-embedding that are not published: a few, however large the collection is."""
    columns = ("id", "group_id", "stage", "part", "state", "input", "output", "details", "chunk_count", "error")
    wanted = sa.select(*(batches.c[name] for name in columns)).where(batches.c.reembedding_id == reembedding_id)
    given_up = sa.and_(batches.c.stage == "check", batches.c.state == "dead")
    wanted = wanted.where(sa.or_(batches.c.stage.in_(("chunk", "embed")), given_up))
    groups: dict[str, list[Row[Any]]] = {}
    for row in connection.execute(wanted.order_by(batches.c.group_id, batches.c.stage, batches.c.part)):
        groups.setdefault(row.group_id, []).append(row)
    several = [row for rows in groups.values() for row in rows]
    ended = [_ended(group_id, rows) for group_id, rows in groups.items() if all(row.state == "done" for row in rows)]
    return OnTheirWay(
        open=sum(row.state in OPEN_BATCH for row in several),
        ended=sorted(ended, key=lambda group: group.group_id),
        dead=[row for row in several if row.state == "dead"],
    )


def _ended(group_id: str, rows: Sequence[Row[Any]]) -> EndedGroup:
    asked = [Slice.of(row.details) for row in rows if row.details and "slice" in row.details]
    parts = [(row.input, row.output) for row in rows if row.output is not None]
    documents = sorted({document for one in asked for document in (*one.documents, *one.removed)})
    return EndedGroup(group_id, parts, documents, sum(row.chunk_count for row in rows if row.output))


def forget_groups(connection: Connection, reembedding_id: str, group_ids: Sequence[str]) -> None:
    """Delete the batches of groups that were published."""
    for some in slices(list(group_ids)):
        mine = (batches.c.reembedding_id == reembedding_id, batches.c.group_id.in_(some))
        connection.execute(sa.delete(batches).where(*mine))


def postpone_slices(connection: Connection, reembedding_id: str) -> None:
    """Let nobody begin another slice."""
    _move_slices(connection, reembedding_id, at=FAR_AWAY)


def resume_slices(connection: Connection, reembedding_id: str, *, now: float) -> None:
    """Let the slices go on, and those that were given up begin again."""
    _move_slices(connection, reembedding_id, at=now)
    given_up = (batches.c.reembedding_id == reembedding_id, batches.c.state == "dead")
    rows = connection.execute(sa.delete(batches).where(*given_up).returning(batches)).mappings().all()
    none = ("error", "postponed", "finished_at", "output", "owner", "lease_until", "aside_since", "order_id")
    fresh = dict.fromkeys(none) | {"state": "ready", "attempts": 0, "next_attempt_at": now, "created_at": now}
    if rows:
        # Under their own names: what a batch staged is kept for as long as the ledger has that batch.
        connection.execute(sa.insert(batches), [{**row, **fresh} for row in rows])


def retry_slices(connection: Connection, reembedding_id: str, *, now: float) -> None:
    """Try at once what waits for a person to see to its provider."""
    waiting = (batches.c.reembedding_id == reembedding_id, batches.c.state == "ready", batches.c.postponed == "paused")
    connection.execute(sa.update(batches).where(*waiting).values(next_attempt_at=now))


def _move_slices(connection: Connection, reembedding_id: str, *, at: float) -> None:
    waiting = (batches.c.reembedding_id == reembedding_id, batches.c.state.in_(("ready", "sent")))
    copying = batches.c.stage.in_(("chunk", "embed"))
    values = {"state": "ready", "next_attempt_at": at, "lease_until": None}
    connection.execute(sa.update(batches).where(*waiting, copying).values(values))
