"""Forms chunk batches of what is queued, tenants in turn. What is in no batch waits here, where nothing can lose it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount, count_left
from ..catalog.batches import ready_batch
from ..catalog.cancelling import being_cancelled
from ..catalog.engine import Catalog
from ..catalog.tables import IS_QUEUED, batches, jobs, versions
from ..catalog.values import slices
from ..ids import TenantId, VersionId
from .caps import Caps
from .claims import Claim
from .room import Backlog, Place, with_room
from .turns import FULL_BYTES, FULL_DOCUMENTS, Turns, cost_of

TURNS = "form"  # of this; what was formed takes turns again where it is worked on


class _Waiting:
    """What waits, by tenant and priority; collections that share both follow each other."""

    def __init__(self, backlogs: Iterable[Backlog]) -> None:
        self._backlogs: dict[str, dict[int, deque[Backlog]]] = {}
        for one in backlogs:
            self._lanes(one.tenant_id).setdefault(one.lane, deque()).append(one)

    def lanes(self) -> dict[str, list[int]]:
        """Return the priorities that each tenant waits with."""
        return {tenant: list(lanes) for tenant, lanes in self._backlogs.items()}

    def pop(self, tenant: str, lane: int) -> Backlog:
        lanes = self._backlogs[tenant]
        backlog = lanes[lane].popleft()
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._backlogs[tenant]
        return backlog

    def put_back(self, backlog: Backlog) -> None:
        self._lanes(backlog.tenant_id).setdefault(backlog.lane, deque()).append(backlog)

    def keep(self, room: Mapping[Place, int]) -> None:
        """Leave out what has no room."""
        for tenant, lane in [place for place, free in room.items() if free <= 0]:
            self._lanes(tenant).pop(lane, None)
            if not self._backlogs[tenant]:
                del self._backlogs[tenant]

    def _lanes(self, tenant: str) -> dict[int, deque[Backlog]]:
        return self._backlogs.setdefault(tenant, {})


def form_chunk_batches(
    catalog: Catalog,
    *,
    now: float,
    max_batches: int,
    max_documents: int = FULL_DOCUMENTS,
    max_bytes: int = FULL_BYTES,
    caps: Caps | None = None,
    ahead: Caps | None = None,
    staged: Caps | None = None,
) -> int:
    """Put queued versions into new chunk batches and return how many were made.

    A batch holds documents of one generation and one priority, oldest first, up to either limit (a larger document
    goes alone). ``caps`` bounds how many chunk batches a tenant has open, ``ahead`` how many embed batches: what cannot
    be embedded yet need not lie about in chunks. Batches that wait for their next attempt, because their model is out
    perhaps or their documents kill workers, hold up only what needs the same model, and only when they are many.
    ``staged`` bounds how many chunks wait for the writer of each shard: while nobody publishes, no money is spent on
    ever more of them. Batches of a lower priority do not count: they are overtaken.
    """
    made = 0
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(versions.c.id).where(IS_QUEUED).limit(1)) is None:
            return 0
    with catalog.write("form_chunk_batches") as connection:
        backlogs, room = with_room(connection, now=now, most=max_batches, caps=caps, ahead=ahead, staged=staged)
        waiting = _Waiting(backlogs)
        waiting.keep(room)
        left: dict[TenantId, Amount] = {}
        turns = Turns.read(connection, TURNS, among=waiting.lanes())
        while made < max_batches and (lanes := waiting.lanes()):
            backlog = waiting.pop(*turns.next_of(lanes))
            found = _oldest_queued(connection, backlog, max_documents=max_documents, max_bytes=max_bytes)
            cancelled = being_cancelled(connection, {row.job_id for row in found}, now=now)
            found = [row for row in found if row.job_id not in cancelled]
            if not found:  # or all is being cancelled, and makes way for what comes after it
                continue
            _form(connection, backlog, found, now=now)
            made += 1
            size_bytes = sum(row.size_bytes for row in found)
            turns.charge(backlog.tenant_id, backlog.lane, cost_of(documents=len(found), size_bytes=size_bytes))
            left[backlog.tenant_id] = left.get(backlog.tenant_id, Amount()) + Amount(len(found), size_bytes)
            for tenant, lane in room:
                room[tenant, lane] -= tenant == backlog.tenant_id and lane >= backlog.lane
            waiting.put_back(backlog)  # behind the tenant's other collections
            waiting.keep(room)
        turns.write(connection)
        count_left(connection, left)
    return made


def put_off(connection: Connection, claim: Claim, version_ids: Sequence[VersionId], *, now: float) -> float:
    """Let these documents of a chunk batch that ends wait for another turn. Returns what this one cost too much."""
    sizes = {version.id: version.size_bytes for version in claim.versions if version.id in set(version_ids)}
    if not sizes:
        return 0.0
    size_bytes = sum(sizes.values())
    row = ready_batch(
        "chunk",
        tenant=claim.tenant_id,
        generation_id=claim.generation.id,
        shard=claim.shard,
        now=now,
        priority=claim.priority,
        document_count=len(sizes),
        size_bytes=size_bytes,
        details=dict(claim.details) or None,
    )
    connection.execute(sa.insert(batches).values(row))
    for some in slices(sorted(sizes)):
        connection.execute(sa.update(versions).where(versions.c.id.in_(some)).values(batch_id=row["id"]))
    return cost_of(documents=len(sizes), size_bytes=size_bytes)


def _oldest_queued(connection: Connection, backlog: Backlog, *, max_documents: int, max_bytes: int) -> list[Row[Any]]:
    mine = (versions.c.collection_id == backlog.collection_id, versions.c.priority == backlog.lane)
    wanted: sa.Select[Any] = (
        sa.select(versions.c.id, versions.c.job_id, versions.c.size_bytes)
        .where(IS_QUEUED, *mine)
        .order_by(versions.c.id)
        .limit(max_documents)
        .with_for_update(skip_locked=True)
    )
    taken: list[Row[Any]] = []
    size_bytes = 0
    for row in connection.execute(wanted):
        size_bytes += row.size_bytes
        if taken and size_bytes > max_bytes:
            break
        taken.append(row)
    return _of_one_purse(connection, taken)


def _of_one_purse(connection: Connection, found: list[Row[Any]]) -> list[Row[Any]]:
    """Return the documents of the oldest one's job where that has a budget, else those of jobs that have none.

    A batch waits as a whole when a budget has no room, and others must not wait with it.
    """
    mine = sa.select(jobs.c.id).where(jobs.c.id.in_({row.job_id for row in found}), jobs.c.budget_usd.is_not(None))
    frugal = set(connection.scalars(mine)) if found else set()
    if found and found[0].job_id in frugal:
        return [row for row in found if row.job_id == found[0].job_id]
    return [row for row in found if row.job_id not in frugal]


def _form(connection: Connection, backlog: Backlog, found: list[Row[Any]], *, now: float) -> None:
    batch = ready_batch(
        "chunk",
        tenant=backlog.tenant_id,
        generation_id=backlog.generation_id,
        shard=backlog.shard,
        now=now,
        priority=backlog.lane,
        document_count=len(found),
        size_bytes=sum(row.size_bytes for row in found),
    )
    connection.execute(sa.insert(batches).values(batch))
    for some in slices([row.id for row in found]):
        moved = sa.update(versions).where(versions.c.id.in_(some), versions.c.state == "queued")
        connection.execute(moved.values(state="chunking", batch_id=batch["id"]))
