"""Whose turn it is: deficit round robin with weights, over tenants and inside a tenant over priorities.

In a round everybody who waits is paid the weight it has, in units of a full batch. Whoever owes nothing may go, and
goes into debt by what it took: what a batch costs counts, not how many there are. Rounds in which nobody could go are
skipped by arithmetic, for an account says in which round its debt is settled. Who comes back from a pause starts in the
current round: waiting saves nothing up, and leaving does not cancel a debt.

The accounts are rows of the ledger, changed in the transaction that hands the work out. So they are the same for every
dispatcher and worker, and a process that dies has neither taken a turn nor lost one.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.statements import insert_or_replace
from ..catalog.tables import PRIORITIES, accounts, batches, tenants
from ..catalog.values import slices
from ..errors import Unavailable
from ..ids import TenantId

FULL_DOCUMENTS, FULL_CHUNKS, FULL_BYTES = 256, 256, 1 << 20  # of a full batch, which costs 1
LANE_WEIGHTS = (
    100.0,
    10.0,
    1.0,
    0.1,
)  # of the priorities of one tenant: low ones get a hundredth of its share at least
CLAIMED_IN_TURN = ("chunk", "embed")  # whoever is free there takes the batch whose turn it is: see `whose_turn`
COLUMNS = tuple(
    batches.c[name] for name in ("id", "tenant_id", "priority", "document_count", "chunk_count", "size_bytes")
)
FORMING = "form"  # the stage in which batches are made of what is queued, which takes turns too
TENANT_LANE = -1  # of a tenant among tenants
assert len(LANE_WEIGHTS) == len(PRIORITIES)

# Statements that run while others wait are made once: to make one takes longer than to run it.
_STAGE, _BATCH = sa.bindparam("stage", type_=sa.String), sa.bindparam("batch", type_=sa.String)
_NOW = sa.bindparam("now", type_=sa.Double)
_LAST = sa.select(sa.func.max(accounts.c.started)).where(accounts.c.stage == _STAGE, accounts.c.lane == TENANT_LANE)
_ACCOUNTS = (
    sa.select(tenants.c.id, tenants.c.weight, accounts.c.lane, accounts.c.started, accounts.c.settled)
    .add_columns(_LAST.scalar_subquery().label("last"))
    .join(accounts, sa.and_(accounts.c.tenant_id == tenants.c.id, accounts.c.stage == _STAGE), isouter=True)
    .where(tenants.c.id.in_(sa.bindparam("tenants", expanding=True)))
)
_KIND = sa.select(batches.c.stage, batches.c.express).where(batches.c.id == _BATCH)
_SENT = (
    sa.select(*COLUMNS)
    .where(batches.c.stage == _STAGE, batches.c.state.in_(("sent", "ready")))
    .where(sa.or_(batches.c.state == "sent", sa.and_(batches.c.state == "ready", batches.c.id == _BATCH)))
    .where(batches.c.next_attempt_at <= _NOW, batches.c.express == sa.bindparam("express"))
    .order_by(batches.c.id)
)


def cost_of(*, documents: int = 0, chunks: int = 0, size_bytes: int = 0) -> float:
    """Return what a batch costs: 1 for a full one, and for work that has no size."""
    if not (documents or chunks or size_bytes):
        return 1.0
    return max(documents / FULL_DOCUMENTS, chunks / FULL_CHUNKS, size_bytes / FULL_BYTES)


def batch_cost(row: Row[Any]) -> float:
    """Return the cost of a row with the sizes of a batch."""
    return cost_of(documents=row.document_count, chunks=row.chunk_count, size_bytes=row.size_bytes)


@dataclass
class Round:
    """The accounts of those who take turns with each other, by name: a pair (started, settled) of rounds each.

    ``current``: the round of the last turn.
    """

    accounts: dict[Any, tuple[float, float]]
    current: float = 0.0

    def __post_init__(self) -> None:
        self.current = max([self.current, *(started for started, _ in self.accounts.values())])

    def due(self, name: Any) -> float:
        """Return the round in which ``name`` may go."""
        _, settled = self.accounts.get(name, (0.0, 0.0))
        return max(self.current, settled)

    def next_of(self, names: Iterable[Any]) -> Any:
        """Return whose turn it is among those who wait; of several, the first."""
        return min(names, key=self.due)

    def charge(self, name: Any, cost: float, *, weight: float) -> None:
        """Let ``name`` go, and pay for it in the rounds to come."""
        self.current = self.due(name)
        self.accounts[name] = (self.current, self.current + cost / weight)


class Turns:
    """The turns of one stage, read for the tenants that wait in it. Use it in one transaction, and `write` it there."""

    def __init__(
        self, stage: str, *, weights: Mapping[str, float], outer: Round, inner: Mapping[str, Round] | None = None
    ) -> None:
        self._stage = stage
        self._weights = weights
        self._outer = outer
        self._inner = dict(inner or {})
        self._changed: set[str] = set()

    @classmethod
    def read(cls, connection: Connection, stage: str, *, among: Iterable[str]) -> "Turns":
        """Return the turns of these tenants. Nobody else takes turns in this stage until the commit."""
        _hold(connection, stage)
        return cls.look(connection, stage, among=among)

    @classmethod
    def look(cls, connection: Connection, stage: str, *, among: Iterable[str]) -> "Turns":
        """Return the turns of these tenants as they are, to see who is next. They cannot be written."""
        weights: dict[str, float] = {}
        outer: dict[str, tuple[float, float]] = {}
        inner: dict[str, dict[int, tuple[float, float]]] = {}
        last = 0.0
        for some in slices(sorted(among)):
            for row in connection.execute(_ACCOUNTS, {"stage": stage, "tenants": some}):
                weights[row.id], last = row.weight, row.last or 0.0
                account = (row.started, row.settled)
                if row.lane == TENANT_LANE:
                    outer[row.id] = account
                elif row.lane is not None:
                    inner.setdefault(row.id, {})[row.lane] = account
        rounds = {tenant: Round(lanes) for tenant, lanes in inner.items()}
        return cls(stage, weights=weights, outer=Round(outer, last), inner=rounds)

    def next_of(self, waiting: Mapping[str, Iterable[int]]) -> tuple[str, int]:
        """Return tenant and priority whose turn it is. ``waiting``: by tenant, the priorities that it waits with."""
        tenant = self._outer.next_of(waiting)
        return tenant, self._lanes(tenant).next_of(sorted(waiting[tenant]))

    def charge(self, tenant: str, lane: int, cost: float) -> None:
        """Take note that the tenant had its turn with this priority, and what it cost."""
        self._outer.charge(tenant, cost, weight=self._weights.get(tenant, 1.0))
        self._lanes(tenant).charge(lane, cost, weight=LANE_WEIGHTS[lane])
        self._changed.add(tenant)

    def write(self, connection: Connection) -> None:
        """Store the accounts that changed."""
        insert_or_replace(connection, accounts, [row for tenant in sorted(self._changed) for row in self._rows(tenant)])

    def _rows(self, tenant: str) -> Iterable[dict[str, Any]]:
        lanes = {TENANT_LANE: self._outer.accounts[tenant], **self._lanes(tenant).accounts}
        for lane, (started, settled) in lanes.items():
            names = {"stage": self._stage, "lane": lane, "tenant_id": tenant}
            yield {**names, "started": started, "settled": settled}

    def _lanes(self, tenant: str) -> Round:
        return self._inner.setdefault(tenant, Round({}))


class BatchesInTurn:
    """Batches that wait, rows with `COLUMNS`, by tenant and priority; those that share both stay in order."""

    def __init__(self, rows: Iterable[Row[Any]]) -> None:
        self._rows: dict[str, dict[int, deque[Row[Any]]]] = {}
        for row in rows:
            self._rows.setdefault(row.tenant_id, {}).setdefault(row.priority, deque()).append(row)

    @property
    def tenants(self) -> list[str]:
        return list(self._rows)

    def keep(self, room: Mapping[str, int]) -> None:
        """Leave out the tenants that have no room."""
        for tenant in [tenant for tenant in self._rows if room[tenant] <= 0]:
            del self._rows[tenant]

    def next_of(self, turns: Turns) -> Row[Any]:
        """Take out the batch whose turn it is."""
        tenant, lane = turns.next_of(self._rows)
        lanes = self._rows[tenant]
        row = lanes[lane].popleft()
        if not lanes[lane]:
            del lanes[lane]
        if not lanes:
            del self._rows[tenant]
        return row


def whose_turn(connection: Connection, batch_id: str, *, now: float) -> str:
    """Return the batch that is to be worked on by whoever was sent ``batch_id``, and charge for it.

    A message says that there is work, not which: of the batches that were sent and that nobody has yet, the one whose
    turn it is comes first, however many of others were sent before. Each message brings one of them to a worker. Those
    that were sent to the worker of short ones are its own.
    """
    stage, express = connection.execute(_KIND, {"batch": batch_id}).one_or_none() or (None, False)
    if stage not in CLAIMED_IN_TURN:
        return batch_id
    _hold(connection, stage)  # before the look: two that looked at once would want the same batch, and one get none
    sent = {"stage": stage, "batch": batch_id, "now": now, "express": express}
    waiting = BatchesInTurn(connection.execute(_SENT, sent).all())
    if not waiting.tenants:
        return batch_id
    turns = Turns.read(connection, stage, among=waiting.tenants)
    row = waiting.next_of(turns)
    turns.charge(row.tenant_id, row.priority, batch_cost(row))
    turns.write(connection)
    return str(row.id)


def refund(catalog: Catalog, stage: str, tenant: TenantId, cost: float) -> None:
    """Give back what a turn was charged for work that was not done in it.

    In a transaction of its own, after the one that ended the turn: who takes turns waits for whoever changes accounts,
    and must not wait for a batch to be ended. When the process dies in between, or the catalog is away, the tenant
    waits a little longer for its next turn.
    """
    weight = sa.select(tenants.c.weight).where(tenants.c.id == tenant).scalar_subquery()
    mine = (accounts.c.stage == stage, accounts.c.lane == TENANT_LANE, accounts.c.tenant_id == tenant)
    paid_off = accounts.c.settled - cost / weight
    lower = sa.case((paid_off > accounts.c.started, paid_off), else_=accounts.c.started)
    with suppress(Unavailable), catalog.write("refund") as connection:
        _hold(connection, stage)
        connection.execute(sa.update(accounts).where(*mine).values(settled=lower))


def _hold(connection: Connection, stage: str) -> None:
    """Let nobody else change the accounts of a stage until the commit: they are read, and then written anew."""
    if connection.dialect.name == "postgresql":  # on SQLite this transaction is the only writer
        key = blake2b(f"turns of {stage}".encode(), digest_size=8).digest()
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(int.from_bytes(key, "big", signed=True))))
