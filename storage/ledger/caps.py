"""How much of a stage one tenant may hold at once, so that nobody fills the queues, nor all workers, alone."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.tables import batches, generations, tenants
from ..catalog.values import slices
from .turns import CLAIMED_IN_TURN, FULL_CHUNKS, FULL_DOCUMENTS

ASIDE_SHARE = 0.01
_LEAST = 1e-9  # of a batch: less is arithmetic


def _loads() -> sa.Select[Any]:
    """Return the statement of `Load.read`: made once, for it takes longer to make than to run."""
    waits = sa.and_(batches.c.state == "ready", batches.c.next_attempt_at > sa.bindparam("now", type_=sa.Double))
    flies = batches.c.state.in_(("sent", "running"))
    # A job that waits for its own budget must not keep the tenant's other jobs from being cut.
    poor = sa.and_(waits, batches.c.postponed.is_not_distinct_from("job_budget"))
    what = sa.case((poor, "poor"), (waits, "waits"), (flies, "flies"), else_="due").label("what")
    key = (batches.c.stage, batches.c.tenant_id, generations.c.model, batches.c.priority, what)
    # What is put aside for an order is to become one of tens of thousands of chunks.
    share = sa.case((batches.c.aside_since.is_not(None), ASIDE_SHARE), else_=1.0)
    sums = [sa.func.sum(batches.c[name] * share).label(name) for name in ("document_count", "chunk_count")]
    wanted = sa.select(*key, sa.func.count().label("batches"), *sums).join(
        generations, generations.c.id == batches.c.generation_id
    )
    # Who has work in either stage has a share of both: soon it will be there.
    wanted = wanted.where(batches.c.stage.in_(CLAIMED_IN_TURN), batches.c.state.in_(OPEN_BATCH))
    # What is copied and waits, paused perhaps, says nothing of documents: a few batches, whatever happens.
    return wanted.where(sa.or_(batches.c.reembedding_id.is_(None), ~waits)).group_by(*key)


_LOADS = _loads()
_WEIGHTS = sa.select(tenants.c.id, tenants.c.weight).where(
    tenants.c.id.in_(sa.bindparam("tenants", expanding=True)), tenants.c.paused_at.is_(None)
)


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
    """What tenants have in hand. ``open``: the batches that are due, were sent or are worked on, by (stage, tenant,
    priority); ``in_flight``: those without the due ones, by (stage, tenant). ``postponed``: those that wait for their
    next attempt, by (stage, tenant, model, priority), counted as full ones. ``active``: who has work to share the
    workers for.
    """

    open: Counter[tuple[str, str, int]]
    in_flight: Counter[tuple[str, str]]
    postponed: Mapping[tuple[str, str, str, int], float]
    active: frozenset[str]

    def as_urgent(self, stage: str, tenant: str, lane: int) -> int:
        """Return how many batches are open of this priority and the higher ones."""
        return sum(self.open[stage, tenant, other] for other in range(lane + 1))

    def postponed_as_urgent(self, stage: str, tenant: str, model: str, lane: int) -> float:
        """Return how many full batches of this model wait for their next attempt, of this priority and higher ones."""
        return sum(self.postponed.get((stage, tenant, model, other), 0.0) for other in range(lane + 1))

    @classmethod
    def read(cls, connection: Connection, *, now: float) -> "Load":
        """Return the load of the stages chunk and embed."""
        rows = connection.execute(_LOADS, {"now": now}).all()
        opened: Counter[tuple[str, str, int]] = Counter()
        in_flight: Counter[tuple[str, str]] = Counter()
        postponed: dict[tuple[str, str, str, int], float] = {}
        for row in rows:
            if row.what == "poor":
                continue
            if row.what == "waits":
                postponed[row.stage, row.tenant_id, row.model, row.priority] = _full(row)
            else:
                opened[row.stage, row.tenant_id, row.priority] += row.batches
            if row.what == "flies":
                in_flight[row.stage, row.tenant_id] += row.batches
        return cls(
            opened, in_flight, postponed, frozenset(row.tenant_id for row in rows if row.what in ("due", "flies"))
        )


def _full(row: Row[Any]) -> float:
    """Return how many full batches the sums of a stage are. Not by bytes: one large document is one that is tried."""
    if row.stage == "chunk":
        return float(row.document_count) / FULL_DOCUMENTS
    return float(row.chunk_count) / FULL_CHUNKS


def weights_of(connection: Connection, tenant_ids: Iterable[str]) -> dict[str, float]:
    """Return the weights of those of these tenants that are not paused."""
    found: dict[str, float] = {}
    for some in slices(sorted(set(tenant_ids))):
        found |= {row.id: row.weight for row in connection.execute(_WEIGHTS, {"tenants": some})}
    return found
