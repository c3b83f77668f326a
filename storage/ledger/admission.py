"""Which batches that are due enter the queue next: tenants in turn, and of none more than its share.

The queue stays shallow because its callers ask for little; the rest waits here, where nothing can lose it. In which
order the batches of a queue are worked on is decided when a worker is free (``claim_in_turn`` of ``claims.py``).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import batches
from ..catalog.values import slices
from ..ids import BatchId
from .caps import Caps, Load, weights_of
from .passing import is_short
from .pauses import goes_on
from .turns import CLAIMED_IN_TURN, COLUMNS, BatchesInTurn, Turns, batch_cost

# A message tells a writer of all of these; it takes turns itself.
_OF_WRITERS = ("rollback", "swap", "expire", "follow", "index")


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
) -> list[ReadyBatch]:
    """Mark up to ``limit`` due batches as sent, tenants in turn, and return them in that order for the queue.

    ``caps`` bounds how many a tenant has in flight. ``express``: so many of the short ones are for the worker that does
    nothing else. If nobody claims one, the reconciler makes it ready again after ``resend_after_s``.
    """
    is_ready = (batches.c.stage == stage, batches.c.state == "ready", batches.c.next_attempt_at <= now)
    due = (*is_ready, goes_on(batches.c.tenant_id))
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(batches.c.id).where(*due).limit(1)) is None:
            return []
    with catalog.write("take_ready") as connection:
        if stage in _OF_WRITERS:
            chosen = list(connection.scalars(sa.select(batches.c.id).where(*due).order_by(batches.c.id).limit(limit)))
        else:
            chosen = _in_turn(connection, due, stage=stage, now=now, limit=limit, caps=caps)
        held = {row.id: row for some in slices(sorted(chosen)) for row in _hold(connection, some, due)}
        rows = [row for row in map(held.get, chosen) if row is not None]
        fast = {row.id for row in [row for row in rows if stage in CLAIMED_IN_TURN and _is_short(row)][:express]}
        for is_fast, ids in ((True, fast), (False, held.keys() - fast)):
            for some in slices(sorted(ids)):
                sent = sa.update(batches).where(batches.c.id.in_(some))
                connection.execute(sent.values(state="sent", lease_until=now + resend_after_s, express=is_fast))
    return [ReadyBatch(BatchId(row.id), row.stage, row.shard, row.id in fast) for row in rows]


def _is_short(row: Row[Any]) -> bool:
    return is_short(documents=row.document_count, chunks=row.chunk_count, size_bytes=row.size_bytes)


def _in_turn(
    connection: Connection,
    due: Sequence[sa.ColumnElement[bool]],
    *,
    stage: str,
    now: float,
    limit: int,
    caps: Caps | None,
) -> list[str]:
    waiting = BatchesInTurn(connection.execute(_first_of_each(due, limit=limit)).all())
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


def _first_of_each(due: Sequence[sa.ColumnElement[bool]], *, limit: int) -> sa.Select[Any]:
    """Return the oldest due batches of each tenant and priority, as many as could be chosen."""
    turn = sa.func.row_number().over(partition_by=(batches.c.tenant_id, batches.c.priority), order_by=batches.c.id)
    ranked = sa.select(*COLUMNS, turn.label("turn")).where(*due).subquery()
    return sa.select(ranked).where(ranked.c.turn <= limit).order_by(ranked.c.id)


def _room(
    connection: Connection, waiting: Iterable[str], *, stage: str, now: float, limit: int, caps: Caps | None
) -> dict[str, int]:
    room = dict.fromkeys(waiting, limit)
    if caps is None or not room:
        return room
    load = Load.read(connection, now=now)
    allowed = caps.of(weights_of(connection, {*room, *load.active}))
    return {tenant: allowed.get(tenant, limit) - load.in_flight[stage, tenant] for tenant in room}


def _hold(connection: Connection, ids: Sequence[str], due: Sequence[sa.ColumnElement[bool]]) -> Sequence[Row[Any]]:
    held: sa.Select[Any] = sa.select(*COLUMNS, batches.c.stage, batches.c.shard).where(batches.c.id.in_(ids), *due)
    return connection.execute(held.order_by(batches.c.id).with_for_update(skip_locked=True, of=batches)).all()
