"""Forms chunk batches of what is queued, tenants in turn. What is in no batch waits here, where nothing can lose it."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import Amount
from ..catalog.batches import ready_batch
from ..catalog.cancelling import is_being_cancelled
from ..catalog.tables import IS_QUEUED, batches, jobs, versions
from ..catalog.values import slices
from ..ids import TenantId, VersionId
from .caps import Caps
from .claims import Claim
from .room import Backlog, Place, with_room
from .turns import FORMING, FULL_BYTES, FULL_DOCUMENTS, Turns, cost_of

LOOKED_AT = 16  # tenants for each batch that may be formed: what waits of one may all be about to be cancelled

# Statements that run while others wait are made once: to make one takes longer than to run it.
_OLDEST: sa.Select[Any] = (
    sa.select(versions.c.id, versions.c.job_id, versions.c.size_bytes)
    .where(
        IS_QUEUED, versions.c.collection_id == sa.bindparam("collection"), versions.c.priority == sa.bindparam("lane")
    )
    .order_by(versions.c.id)
    .limit(sa.bindparam("most"))
    .with_for_update(skip_locked=True)
)
_JOBS = sa.select(
    jobs.c.id,
    jobs.c.budget_usd.is_not(None).label("is_frugal"),
    is_being_cancelled(sa.bindparam("now", type_=sa.Double)).label("is_leaving"),
).where(jobs.c.id.in_(sa.bindparam("jobs", expanding=True)))
_INSERT = sa.insert(batches)
_MOVE = (
    sa.update(versions)
    .where(versions.c.id.in_(sa.bindparam("ids", expanding=True)), versions.c.state == "queued")
    .values(state="chunking", batch_id=sa.bindparam("batch"))
)


@dataclass(frozen=True)
class Forming:
    """How many chunk batches are formed at once, and how large they are.

    A batch holds documents of one generation and one priority, oldest first, up to either limit (a larger document
    goes alone). ``caps`` bounds how many chunk batches a tenant has open, ``ahead`` how many embed batches: what cannot
    be embedded yet need not lie about in chunks. Batches that wait for their next attempt, because their model is out
    perhaps or their documents kill workers, hold up only what needs the same model, and only when they are many.
    ``staged`` bounds how many chunks wait for the writer of each shard: while nobody publishes, no money is spent on
    ever more of them. Batches of a lower priority do not count: they are overtaken.
    """

    max_batches: int
    max_documents: int = FULL_DOCUMENTS
    max_bytes: int = FULL_BYTES
    caps: Caps | None = None
    ahead: Caps | None = None
    staged: Caps | None = None


@dataclass(frozen=True)
class Formed:
    """How many batches were made, and what waits no more for it, by tenant: for `count_left`, last of all."""

    batches: int
    left: Mapping[TenantId, Amount]


class Waiting:
    """What waits and has room, by tenant and priority; collections that share both follow each other."""

    def __init__(self, backlogs: Iterable[Backlog], room: dict[Place, int]) -> None:
        self._backlogs: dict[str, dict[int, deque[Backlog]]] = {}
        for one in backlogs:
            self._lanes(one.tenant_id).setdefault(one.lane, deque()).append(one)
        self._room = room
        self._keep()

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
        """Let it have another turn, behind the tenant's other collections, if there is room for one more batch."""
        self._lanes(backlog.tenant_id).setdefault(backlog.lane, deque()).append(backlog)
        for tenant, lane in self._room:
            self._room[tenant, lane] -= tenant == backlog.tenant_id and lane >= backlog.lane
        self._keep()

    def _keep(self) -> None:
        """Leave out what has no room."""
        for tenant, lane in [place for place, free in self._room.items() if free <= 0]:
            self._lanes(tenant).pop(lane, None)
            if not self._backlogs[tenant]:
                del self._backlogs[tenant]

    def _lanes(self, tenant: str) -> dict[int, deque[Backlog]]:
        return self._backlogs.setdefault(tenant, {})


def find_waiting(connection: Connection, forming: Forming, *, now: float) -> Waiting:
    """Return what may be formed. It reads only, so that nobody waits for who looks.

    What several find at once they may all form: the bounds are no promises, and the next look counts what was formed.
    Where thousands of tenants wait, those that are next are enough: who forms holds up everybody else.
    """
    bounds = {"caps": forming.caps, "ahead": forming.ahead, "staged": forming.staged}
    backlogs, room = with_room(connection, now=now, most=forming.max_batches, **bounds)
    settled = {one.tenant_id: one.settled for one in backlogs if room[one.tenant_id, one.lane] > 0}
    soon = set(nsmallest(LOOKED_AT * forming.max_batches, settled, key=lambda tenant: settled[tenant]))
    of_them = {place: free for place, free in room.items() if place[0] in soon}
    return Waiting((one for one in backlogs if one.tenant_id in soon), of_them)


def form_waiting(connection: Connection, waiting: Waiting, forming: Forming, *, now: float) -> Formed:
    """Put queued versions of what waits into new chunk batches, tenants in turn.

    It leaves to its caller to count what was formed, at the end of the transaction: whoever holds that row of a tenant
    must wait for nobody.
    """
    made = 0
    left: dict[TenantId, Amount] = {}
    turns = Turns.read(connection, FORMING, among=waiting.lanes())
    while made < forming.max_batches and (lanes := waiting.lanes()):
        backlog = waiting.pop(*turns.next_of(lanes))
        found = _oldest_queued(connection, backlog, forming, now=now)
        if not found:  # or all is being cancelled, and makes way for what comes after it
            continue
        _form(connection, backlog, found, now=now)
        made += 1
        size_bytes = sum(row.size_bytes for row in found)
        turns.charge(backlog.tenant_id, backlog.lane, cost_of(documents=len(found), size_bytes=size_bytes))
        left[backlog.tenant_id] = left.get(backlog.tenant_id, Amount()) + Amount(len(found), size_bytes)
        waiting.put_back(backlog)
    turns.write(connection)
    return Formed(made, left)


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


def _oldest_queued(connection: Connection, backlog: Backlog, forming: Forming, *, now: float) -> list[Row[Any]]:
    oldest = {"collection": backlog.collection_id, "lane": backlog.lane, "most": forming.max_documents}
    taken: list[Row[Any]] = []
    size_bytes = 0
    for row in connection.execute(_OLDEST, oldest):
        size_bytes += row.size_bytes
        if taken and size_bytes > forming.max_bytes:
            break
        taken.append(row)
    return _worth_beginning(connection, taken, now=now)


def _worth_beginning(connection: Connection, found: list[Row[Any]], *, now: float) -> list[Row[Any]]:
    """Return those of one purse, without those whose jobs are being cancelled.

    One purse: the documents of the oldest one's job where that has a budget, else those of jobs that have none. A batch
    waits as a whole when a budget has no room, and others must not wait with it.
    """
    if not found:
        return found
    their_jobs = connection.execute(_JOBS, {"jobs": sorted({row.job_id for row in found}), "now": now}).all()
    frugal = {job.id for job in their_jobs if job.is_frugal}
    leaving = {job.id for job in their_jobs if job.is_leaving}
    mine = {found[0].job_id} if found[0].job_id in frugal else {job.id for job in their_jobs} - frugal
    return [row for row in found if row.job_id in mine - leaving]


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
    connection.execute(_INSERT, batch)
    for some in slices([row.id for row in found]):
        connection.execute(_MOVE, {"ids": some, "batch": batch["id"]})
