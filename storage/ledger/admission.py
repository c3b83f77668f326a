"""Which batches that are due enter the queue next: tenants in turn, and of none more than its share.

The queue stays shallow because its callers ask for little; the rest waits here, where nothing can lose it. In which
order the batches of a queue are worked on is decided when a worker is free (``whose_turn`` of ``turns.py``).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.backlogs import count_left
from ..catalog.engine import Catalog
from ..catalog.tables import batches
from ..catalog.values import slices
from ..ids import BatchId
from .caps import Caps, Load, weights_of
from .forming import Forming, find_waiting, form_waiting
from .passing import is_short
from .pauses import goes_on
from .turns import CLAIMED_IN_TURN, COLUMNS, BatchesInTurn, Turns, batch_cost

# A message tells a writer of all of these; it takes turns itself.
_OF_WRITERS = ("rollback", "swap", "expire", "follow", "index")

# Statements that run while others wait are made once: to make one takes longer than to run it.
_IS_DUE = (
    batches.c.stage == sa.bindparam("stage"),
    batches.c.state == "ready",
    batches.c.next_attempt_at <= sa.bindparam("now", type_=sa.Double),
    goes_on(batches.c.tenant_id),
)
_ONE = sa.select(batches.c.id).where(*_IS_DUE).limit(1)
_OLDEST = sa.select(batches.c.id).where(*_IS_DUE).order_by(batches.c.id).limit(sa.bindparam("most"))
_HELD: sa.Select[Any] = (
    sa.select(*COLUMNS, batches.c.stage, batches.c.shard)
    .where(batches.c.id.in_(sa.bindparam("ids", expanding=True)), *_IS_DUE)
    .order_by(batches.c.id)
    .with_for_update(skip_locked=True, of=batches)
)
_SEND = (
    sa.update(batches)
    .where(batches.c.id.in_(sa.bindparam("ids", expanding=True)))
    .values(state="sent", lease_until=sa.bindparam("until"), express=sa.bindparam("is_fast"))
)


@dataclass(frozen=True)
class ReadyBatch:
    id: BatchId
    stage: str
    shard: int
    express: bool = False


def take_ready(
    catalog: Catalog,
    *,
    stage: str,
    now: float,
    limit: int,
    resend_after_s: float,
    caps: Caps | None = None,
    express: int = 0,
    forming: Forming | None = None,
) -> list[ReadyBatch]:
    """Mark up to ``limit`` due batches as sent, tenants in turn, and return them in that order for the queue.

    ``caps`` bounds how many a tenant has in flight. ``express``: so many of the short ones are for the worker that does
    nothing else. If nobody claims one, the reconciler makes it ready again after ``resend_after_s``. ``forming``: form
    chunk batches of what is queued first, in the same transaction.
    """
    due = {"stage": stage, "now": now}
    with catalog.read() as connection:  # the common case, without the write lock
        waiting = find_waiting(connection, forming, now=now) if forming else None
        if not (waiting and waiting.lanes()) and connection.scalar(_ONE, due) is None:
            return []
    with catalog.write("take_ready") as connection:
        formed = form_waiting(connection, waiting, forming, now=now) if forming and waiting else None
        if stage in _OF_WRITERS:
            chosen = list(connection.scalars(_OLDEST, {**due, "most": limit}))
        else:
            chosen = _in_turn(connection, stage=stage, now=now, limit=limit, caps=caps)
        held = {
            row.id: row for some in slices(sorted(chosen)) for row in connection.execute(_HELD, {**due, "ids": some})
        }
        rows = [row for row in map(held.get, chosen) if row is not None]
        fast = {row.id for row in [row for row in rows if stage in CLAIMED_IN_TURN and _is_short(row)][:express]}
        for is_fast, ids in ((True, fast), (False, held.keys() - fast)):
            for some in slices(sorted(ids)):
                connection.execute(_SEND, {"ids": some, "until": now + resend_after_s, "is_fast": is_fast})
        if formed:
            count_left(connection, formed.left)
    return [ReadyBatch(BatchId(row.id), row.stage, row.shard, row.id in fast) for row in rows]


def _is_short(row: Row[Any]) -> bool:
    return is_short(documents=row.document_count, chunks=row.chunk_count, size_bytes=row.size_bytes)


def _in_turn(connection: Connection, *, stage: str, now: float, limit: int, caps: Caps | None) -> list[str]:
    waiting = BatchesInTurn(connection.execute(_FIRST_OF_EACH, {"stage": stage, "now": now, "most": limit}).all())
    room = _room(connection, waiting.tenants, stage=stage, now=now, limit=limit, caps=caps)
    waiting.keep(room)
    turns = Turns.read(connection, stage, among=waiting.tenants)
    chosen: list[str] = []
    while len(chosen) < limit and waiting.tenants:
        row = waiting.next_of(turns)
        turns.charge(row.tenant_id, row.priority, batch_cost(row))
        chosen.append(row.id)
        room[row.tenant_id] -= 1
        waiting.keep(room)
    if stage not in CLAIMED_IN_TURN:  # else its claim is the turn that counts
        turns.write(connection)
    return chosen


def _first_of_each() -> sa.Select[Any]:
    """Return the statement for the oldest due batches of each tenant and priority, as many as could be chosen."""
    turn = sa.func.row_number().over(partition_by=(batches.c.tenant_id, batches.c.priority), order_by=batches.c.id)
    ranked = sa.select(*COLUMNS, turn.label("turn")).where(*_IS_DUE).subquery()
    return sa.select(ranked).where(ranked.c.turn <= sa.bindparam("most")).order_by(ranked.c.id)


_FIRST_OF_EACH = _first_of_each()


def _room(
    connection: Connection, waiting: Iterable[str], *, stage: str, now: float, limit: int, caps: Caps | None
) -> dict[str, int]:
    room = dict.fromkeys(waiting, limit)
    if caps is None or not room:
        return room
    load = Load.read(connection, now=now)
    allowed = caps.of(weights_of(connection, {*room, *load.active}))
    return {tenant: allowed.get(tenant, limit) - load.in_flight[stage, tenant] for tenant in room}
