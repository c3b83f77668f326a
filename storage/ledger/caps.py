"""How much of a stage one tenant may hold at once, so that nobody fills the queues, nor all workers, alone."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.completion import OPEN_BATCH
from ..catalog.tables import batches, generations, tenants
from ..catalog.values import slices
from .turns import FULL_CHUNKS

_SHARED = ("chunk", "embed")  # who has work in either has a share of both: soon it will be there
_LEAST = 1e-9  # of a batch: less is arithmetic


@dataclass(frozen=True)
class Caps:
    """``depth``: the batches of one stage that all tenants may have together, shared by weight among those with work.

    ``alone``: the part of it that one may have when it is alone, so that the next to come finds room at once.
    """

    depth: int
    alone: float = 1.0

    def of(self, weights: Mapping[str, float]) -> dict[str, int]:
        """Return what each of these tenants may have, at least one batch."""
        total = sum(weights.values())
        shares = {tenant: min(self.alone, weight / total) for tenant, weight in weights.items()}
        return {tenant: max(1, ceil(self.depth * share - _LEAST)) for tenant, share in shares.items()}


@dataclass(frozen=True)
class Load:
    """What tenants have in hand. ``open``: the batches that are not over, by (stage, tenant, priority); ``in_flight``:
    those that were sent or are worked on, by (stage, tenant). ``active``: who has work to share the workers for.

    ``postponed``: the chunks of embed batches that wait for their next attempt, by (tenant, model, priority); those
    batches are not among the open ones.
    """

    open: Counter[tuple[str, str, int]]
    in_flight: Counter[tuple[str, str]]
    active: frozenset[str]
    postponed: Counter[tuple[str, str, int]]

    def as_urgent(self, stage: str, tenant: str, lane: int) -> int:
        """Return how many batches are open of this priority and the higher ones."""
        return sum(self.open[stage, tenant, other] for other in range(lane + 1))

    def postponed_as_urgent(self, tenant: str, model: str, lane: int) -> float:
        """Return how many full batches for this model wait for their next attempt, of this priority and higher ones."""
        return sum(self.postponed[tenant, model, other] for other in range(lane + 1)) / FULL_CHUNKS

    @classmethod
    def read(cls, connection: Connection, *, now: float) -> "Load":
        """Return the load of the stages chunk and embed."""
        waits = sa.and_(batches.c.state == "ready", batches.c.next_attempt_at > now)
        flies = batches.c.state.in_(("sent", "running"))
        what = sa.case((waits, "waits"), (flies, "flies"), else_="due").label("what")
        key = (batches.c.stage, batches.c.tenant_id, generations.c.model, batches.c.priority, what)
        sums = (sa.func.count().label("batches"), sa.func.sum(batches.c.chunk_count).label("chunks"))
        wanted = sa.select(*key, *sums).join(generations, generations.c.id == batches.c.generation_id)
        wanted = wanted.where(batches.c.stage.in_(_SHARED), batches.c.state.in_(OPEN_BATCH))
        rows = connection.execute(wanted.group_by(*key)).all()
        opened: Counter[tuple[str, str, int]] = Counter()
        in_flight: Counter[tuple[str, str]] = Counter()
        postponed: Counter[tuple[str, str, int]] = Counter()
        for row in rows:
            if row.what == "waits" and row.stage == "embed":
                postponed[row.tenant_id, row.model, row.priority] += int(row.chunks)
            else:
                opened[row.stage, row.tenant_id, row.priority] += row.batches
            if row.what == "flies":
                in_flight[row.stage, row.tenant_id] += row.batches
        active = frozenset(row.tenant_id for row in rows if row.what != "waits")
        return cls(opened, in_flight, active, postponed)


def weights_of(connection: Connection, tenant_ids: Iterable[str]) -> dict[str, float]:
    """Return the weights of those of these tenants that are not paused."""
    found: dict[str, float] = {}
    for some in slices(sorted(set(tenant_ids))):
        wanted = sa.select(tenants.c.id, tenants.c.weight).where(tenants.c.id.in_(some), tenants.c.paused_at.is_(None))
        found |= {row.id: row.weight for row in connection.execute(wanted)}
    return found
