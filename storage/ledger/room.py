"""How much may be formed of what waits: as much as the stages behind it have room for. Reads only."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.tables import IS_QUEUED, IS_STAGED, PRIORITIES, accounts, batches, generations, tenants, versions
from ..ids import CollectionId, GenerationId, TenantId
from .caps import Caps, Load, weights_of
from .pauses import goes_on
from .turns import FORMING, TENANT_LANE

POSTPONED = 8  # full batches of one model and stage that a tenant may have in backoff, however small its share is
LEAST_CHUNKS = 16  # that a batch counts as at the writer: its files and its rows cost as much
Place = tuple[str, int]  # tenant and priority


@dataclass(frozen=True)
class Backlog:
    """The queued versions of one collection that have one priority. ``generation_id``: its active one.

    ``weight``: of the tenant. ``settled``: the round in which its next turn is due, or in the past; see ``turns.py``.
    """

    tenant_id: TenantId
    collection_id: CollectionId
    generation_id: GenerationId
    model: str
    shard: int
    weight: float
    settled: float
    lane: int


def with_room(
    connection: Connection, *, now: float, most: int, caps: Caps | None, ahead: Caps | None, staged: Caps | None
) -> tuple[list[Backlog], dict[Place, int]]:
    """Return what waits and may go on, and how many batches of each priority of a tenant, at most ``most``.

    The bounds are those of `Forming`.
    """
    backlogs = _backlogs(connection)
    if backlogs and staged is not None:
        backlogs = _below_staged(connection, backlogs, staged)
    room: dict[Place, int] = {(one.tenant_id, one.lane): most for one in backlogs}
    if not room or (caps is None and ahead is None):
        return backlogs, room
    load = Load.read(connection, now=now)
    weights = _weights(connection, backlogs, others=load.active)
    for stage, some in (("chunk", caps), ("embed", ahead)):
        if some is None:
            continue
        allowed = some.of(weights)
        for tenant, lane in [place for place in room if place[0] in allowed]:
            free, so_far = allowed[tenant] - load.as_urgent(stage, tenant, lane), room[tenant, lane]
            room[tenant, lane] = min(so_far, free if stage == "chunk" or free <= 0 else so_far)
        backlogs = [  # where thousands wait, and nothing is postponed, none is looked at
            one
            for one in backlogs
            if not load.postponed
            or load.postponed_as_urgent(stage, one.tenant_id, one.model, one.lane)
            < max(POSTPONED, allowed.get(one.tenant_id, 0))
        ]
    return backlogs, room


def _queued_lanes() -> sa.Select[Any]:
    """Return the statement of `_backlogs`: a few index probes per collection, however many documents wait in it."""
    queued = sa.exists().where(IS_QUEUED, versions.c.collection_id == generations.c.collection_id)
    lanes = [queued.where(versions.c.priority == lane).label(f"lane_{lane}") for lane in range(len(PRIORITIES))]
    names = ("tenant_id", "collection_id", "id", "model", "shard")
    of_generation = [generations.c[name] for name in names]
    of_tenant = (tenants.c.weight, sa.func.coalesce(accounts.c.settled, 0.0))
    account = (accounts.c.stage == FORMING, accounts.c.lane == TENANT_LANE)
    found = sa.select(*of_generation, *of_tenant, *lanes).join(tenants, tenants.c.id == generations.c.tenant_id)
    found = found.outerjoin(accounts, sa.and_(*account, accounts.c.tenant_id == generations.c.tenant_id))
    found = found.where(generations.c.state == "active", queued, goes_on(generations.c.tenant_id))
    return found.order_by(generations.c.id)


def _staged_sums() -> sa.Select[Any]:
    """Return the statement of `_staged`: a walk over one index."""
    at_least = sa.case((batches.c.chunk_count > LEAST_CHUNKS, batches.c.chunk_count), else_=LEAST_CHUNKS)
    key = (batches.c.shard, batches.c.tenant_id, batches.c.priority)
    return sa.select(*key, sa.func.sum(at_least)).where(IS_STAGED).group_by(*key)


_QUEUED_LANES, _STAGED_SUMS = _queued_lanes(), _staged_sums()  # made once: to make one takes longer than to run it


def _backlogs(connection: Connection) -> list[Backlog]:
    found: list[Backlog] = []
    for tenant, collection, generation, model, shard, weight, settled, *waits in connection.execute(_QUEUED_LANES):
        told = (TenantId(tenant), CollectionId(collection), GenerationId(generation), model, shard, weight, settled)
        found += [Backlog(*told, lane) for lane, waiting in enumerate(waits) if waiting]
    return found


def _weights(connection: Connection, backlogs: Iterable[Backlog], *, others: Iterable[str]) -> dict[str, float]:
    """Return the weights of the tenants that wait, which are known, and of ``others`` that are not paused."""
    known = {str(one.tenant_id): one.weight for one in backlogs}
    return known | weights_of(connection, set(others) - known.keys())


def _below_staged(connection: Connection, backlogs: Iterable[Backlog], staged: Caps) -> list[Backlog]:
    """Leave out whoever has its share of the chunks that may wait for the writer of a shard."""
    waiting = _staged(connection)
    of_shard: dict[int, set[str]] = defaultdict(set)
    for shard, tenant, _ in waiting:
        of_shard[shard].add(tenant)
    backlogs = list(backlogs)
    weights = _weights(connection, backlogs, others={tenant for _, tenant, _ in waiting})
    for one in backlogs:
        of_shard[one.shard].add(one.tenant_id)
    shares = {
        shard: staged.of({tenant: weights[tenant] for tenant in some if tenant in weights})
        for shard, some in of_shard.items()
    }

    def has_room(one: Backlog) -> bool:
        mine = sum(waiting[one.shard, one.tenant_id, lane] for lane in range(one.lane + 1))
        return mine < shares[one.shard].get(one.tenant_id, 0)

    return [one for one in backlogs if has_room(one)]


def _staged(connection: Connection) -> Counter[tuple[int, str, int]]:
    """Return the embedded chunks that wait for their writer, by shard, tenant and priority."""
    rows = connection.execute(_STAGED_SUMS)
    return Counter({(shard, tenant, lane): int(chunks) for shard, tenant, lane, chunks in rows})
