"""Orders at a provider: embed batches of one generation that were put aside (`aside.py`), and are bought together.

Whoever holds the lease works on an order. Each function is one transaction, and changes nothing once the lease is lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.batches import PAUSED_FROM
from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.tables import batches, generations, orders
from ..catalog.values import slices, storable
from ..costs import OrderCosts, move_to_order, settle_order
from ..errors import Conflict
from ..ids import BatchId, CollectionId, GenerationId, TenantId, new_id

MOST_CHUNKS = 50_000  # that OpenAI takes in one order
MOST_TIMES = 2  # that a batch is ordered
PATIENT_S = 26 * 3_600.0  # an order takes a day at most
_ANEW = dict.fromkeys(("file_id", "provider_id", "placing_at", "repeated"), None) | {"state": "gathered"}
IS_ASIDE = (batches.c.stage == "embed", batches.c.state == "ready", batches.c.aside_since.is_not(None))


@dataclass(frozen=True)
class Order:
    """An order, held by ``owner`` until its lease ends.

    ``repeated``: by batch, the rows whose texts another batch asks for, in the file that the provider has.
    """

    id: str
    owner: str
    tenant_id: TenantId
    generation_id: GenerationId
    collection_id: CollectionId | None  # None, as the model: its generation is gone
    model: str | None
    dimensions: int
    state: str
    chunk_count: int
    tokens: int
    file_id: str | None
    provider_id: str | None
    attempts: int
    placing_at: float | None
    created_at: float
    repeated: Mapping[str, Sequence[int]]


def claim_order(catalog: Catalog, *, owner: str, lease_s: float, now: float) -> Order | None:
    """Take an open order that is to be looked at and that nobody holds; None: there is none."""
    free = sa.or_(orders.c.lease_until.is_(None), orders.c.lease_until < now)
    due = (orders.c.state != "over", orders.c.next_look_at <= now, free)
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(orders.c.id).where(*due).limit(1)) is None:
            return None
    with catalog.write("claim_order") as connection:
        found = connection.scalar(
            sa.select(orders.c.id)
            .where(*due)
            .order_by(orders.c.next_look_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if found is None:
            return None
        taken = sa.update(orders).where(orders.c.id == found).values(owner=owner, lease_until=now + lease_s)
        row = connection.execute(taken.returning(orders)).one()
        of = sa.select(generations).where(generations.c.id == row.generation_id)
        generation = connection.execute(of).first()
    return Order(
        row.id,
        owner,
        TenantId(row.tenant_id),
        GenerationId(row.generation_id),
        CollectionId(generation.collection_id) if generation else None,
        generation.model if generation else None,
        generation.dimensions if generation else 0,
        row.state,
        row.chunk_count,
        int(row.tokens),
        row.file_id,
        row.provider_id,
        row.attempts,
        row.placing_at,
        row.created_at,
        row.repeated or {},
    )


def renew_order(catalog: Catalog, order: Order, *, lease_s: float, now: float) -> None:
    """Keep the order for ``lease_s`` from now. Raises Conflict: somebody else has it."""
    with catalog.write("renew_order") as connection:
        _change(connection, order, lease_until=now + lease_s)


def record_file(
    catalog: Catalog, order: Order, *, file_id: str, repeated: Mapping[str, Sequence[int]], now: float
) -> Order:
    """Say that the provider has the file and may be told of the order from now on. Raises Conflict."""
    values: dict[str, Any] = {"state": "placing", "file_id": file_id, "placing_at": now, "repeated": repeated}
    placing = replace(order, **values, attempts=order.attempts + 1)
    with catalog.write("record_file") as connection:
        _change(connection, order, **values, attempts=placing.attempts)
    return placing


def record_placed(catalog: Catalog, order: Order, *, provider_id: str, told: str, look_s: float, now: float) -> None:
    """Say what the order's name at the provider is, and let go of it for a while. Raises Conflict."""
    with catalog.write("record_placed") as connection:
        _release(connection, order, told=told, next_look_at=now + look_s, state="placed", provider_id=provider_id)
        _tell_members(connection, order, told=told, now=now)


def look_later(
    catalog: Catalog, order: Order, *, told: str, look_s: float, now: float, again: bool = False, paused: bool = False
) -> None:
    """Let go of the order for a while, and tell the jobs of its documents how it goes. Raises Conflict.

    ``again``: the provider has nothing of it: it is placed anew. ``paused``: a person has to act first.
    """
    with catalog.write("look_later") as connection:
        _release(connection, order, told=told, next_look_at=now + look_s, **(_ANEW if again else {}))
        _tell_members(connection, order, told=told, now=now, paused=paused)


def split_order(catalog: Catalog, order: Order, batch_ids: Sequence[BatchId], *, told: str, now: float) -> None:
    """Make another order of these of its batches; the provider has nothing of it. Raises Conflict."""
    with catalog.write("split_order") as connection:
        rows = connection.execute(sa.select(batches).where(batches.c.id.in_(batch_ids), *IS_ASIDE)).all()
        _release(connection, order, told=told, next_look_at=now, **_ANEW)
        insert_order(connection, rows, now=now)


def detach(catalog: Catalog, order: Order, batch_ids: Sequence[BatchId], *, now: float) -> None:
    """Leave batches out of an order that has no room for them: they are gathered into the next. Raises Conflict."""
    with catalog.write("detach") as connection:
        _change(connection, order, chunk_count=orders.c.chunk_count)
        move_to_order(connection, batch_ids, order_id=None)
        for some in slices(list(batch_ids)):
            left = sa.update(batches).where(batches.c.id.in_(some), batches.c.order_id == order.id, *IS_ASIDE)
            connection.execute(left.values(order_id=None, aside_since=now))


@dataclass
class Delivered:
    """What an order brought: ``objects``, staged by batch, and what that took."""

    objects: dict[BatchId, list[str]] = field(default_factory=dict)
    costs: OrderCosts = field(default_factory=OrderCosts)


NOTHING = Delivered()


def end_order(
    catalog: Catalog, order: Order, delivered: Delivered, *, told: str, now: float, once_more: bool = False
) -> int:
    """End an order: its batches are due again, with what was ``delivered`` for them, which is paid for now.

    What was set aside for the rest is given back. What is missing is embedded the usual way; or ordered ``once_more``,
    where the time was over. Returns how many batches there were. Raises Conflict.
    """
    mine = sa.select(batches).where(batches.c.order_id == order.id, *IS_ASIDE).order_by(batches.c.id)
    with catalog.write("end_order") as connection:
        over = {"state": "over", "finished_at": now, "owner": None, "lease_until": None}
        _change(connection, order, told=storable(told), **over)
        place = None if order.collection_id is None or order.model is None else (order.collection_id, order.model)
        settle_order(connection, order.id, delivered.costs, tenant=order.tenant_id, place=place, now=now)
        rows = connection.execute(mine.with_for_update()).all()
        values = [
            {
                "batch": row.id,
                "changed": _after(row.details, delivered.objects.get(BatchId(row.id), ()), once_more=once_more),
            }
            for row in rows
        ]
        due = sa.update(batches).where(batches.c.id == sa.bindparam("batch"))
        due = due.values(details=sa.bindparam("changed", type_=batches.c.details.type), next_attempt_at=_at(now))
        if values:
            connection.execute(due.values(aside_since=None, order_id=None, postponed=None, error=None), values)
    return len(rows)


def forget_orders(catalog: Catalog, *, before: float) -> int:
    """Forget orders that were over by then. Returns how many."""
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(orders.c.id).where(orders.c.finished_at < before).limit(1)) is None:
            return 0
    with catalog.write("forget_orders") as connection:
        return connection.execute(sa.delete(orders).where(orders.c.finished_at < before)).rowcount


def are_others_open(catalog: Catalog, order: Order) -> bool:
    """Say whether the provider has other orders of this model, for whose end to wait."""
    of_model = sa.exists().where(generations.c.id == orders.c.generation_id, generations.c.model == order.model)
    others = sa.select(orders.c.id).where(orders.c.state == "placed", orders.c.id != order.id, of_model)
    with catalog.read() as connection:
        return connection.scalar(others.limit(1)) is not None


def _after(details: Mapping[str, Any], staged: Sequence[str], *, once_more: bool) -> dict[str, Any]:
    told = details.get("ordered", {})
    objects = [*told.get("objects", ()), *staged]
    # Without one more, it counts as ordered so often that nobody orders the rest.
    times = told.get("times", 0) + 1 if once_more else MOST_TIMES
    rest = {name: value for name, value in details.items() if name != "wanted"}
    return {**rest, "ordered": {"times": times, "objects": objects}}


def insert_order(connection: Connection, rows: Sequence[Row[Any]], *, now: float) -> str:
    """Make an order of these batches of one generation, which are in none, and return its id."""
    made = new_id("order")
    order = {
        "id": made,
        "tenant_id": rows[0].tenant_id,
        "generation_id": rows[0].generation_id,
        "state": "gathered",
        "chunk_count": sum(row.chunk_count for row in rows),
        "tokens": sum(row.details.get("wanted", {}).get("tokens", 0) for row in rows),
        "next_look_at": now,
        "created_at": now,
    }
    connection.execute(sa.insert(orders).values(order))
    move_to_order(connection, [row.id for row in rows], order_id=made)
    for some in slices([row.id for row in rows]):
        connection.execute(sa.update(batches).where(batches.c.id.in_(some)).values(order_id=made))
    return made


def _change(connection: Connection, order: Order, **values: Any) -> None:
    held = (orders.c.id == order.id, orders.c.owner == order.owner, orders.c.state != "over")
    if connection.execute(sa.update(orders).where(*held).values(values)).rowcount != 1:
        raise Conflict(f"order {order.id} is no longer held by {order.owner}")


def _release(connection: Connection, order: Order, *, told: str, **values: Any) -> None:
    _change(connection, order, owner=None, lease_until=None, told=storable(told), **values)


def _tell_members(connection: Connection, order: Order, *, told: str, now: float, paused: bool = False) -> None:
    mine = sa.update(batches).where(batches.c.order_id == order.id, batches.c.state.in_(OPEN_BATCH), *IS_ASIDE)
    told_so = {**waiting_for_order(told), "next_attempt_at": _at(now + PATIENT_S)}
    connection.execute(mine.values({**told_so, **({"postponed": "paused"} if paused else {})}))


def _at(moment: float) -> sa.ColumnElement[float]:
    """Return when a batch is due: at this moment, unless it is paused."""
    return sa.case((batches.c.next_attempt_at >= PAUSED_FROM, batches.c.next_attempt_at), else_=moment)


def waiting_for_order(reason: str) -> dict[str, Any]:
    """Return what a batch says that waits for an order."""
    return {"error": storable(reason), "postponed": "waits_for_order"}
