"""What is set aside for orders, batch by batch: from when a batch is put aside to be ordered until its order is over.

All but the last are parts of their caller's transaction: a batch and its money change together.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.completion import OPEN_BATCH
from ..catalog.engine import Catalog
from ..catalog.tables import batches, reservations
from ..catalog.values import slices
from ..ids import BatchId, CollectionId, JobId, TenantId
from .amounts import Amounts, cost_of
from .bills import UNRESERVED, settle
from .lapses import in_full
from .payees import Payee
from .reservations import ForOrder, reserve_within

_AT_ONCE = 1_000
_OF_ORDERS = (reservations.c.batch_id.is_not(None), reservations.c.attempt.is_(None))


def set_aside_for_order(connection: Connection, payee: Payee, tokens: int, *, batch_id: BatchId, now: float) -> None:
    """Set aside what ordering ``tokens`` for a batch costs, in the place of what was set aside for it before.

    Raises OverBudget: the caller rolls back, and what was set aside before stays.
    """
    before = sa.select(reservations).where(reservations.c.batch_id == batch_id, *_OF_ORDERS)
    _give_back(connection, connection.execute(before.where(reservations.c.order_id.is_(None))).all(), now=now)
    if not payee.is_free:
        reserve_within(connection, payee, tokens, held=ForOrder(batch_id), now=now)


def move_to_order(connection: Connection, batch_ids: Collection[str], *, order_id: str | None) -> None:
    """Let this order settle what is set aside for these batches; None: the next one that they become a part of."""
    for some in slices(sorted(batch_ids)):
        mine = sa.update(reservations).where(reservations.c.batch_id.in_(some), *_OF_ORDERS)
        connection.execute(mine.values(order_id=order_id))


@dataclass
class OrderCosts:
    """What an order took: ``tokens`` by batch, at ``price`` a million (None: not known); jobs share it by ``weights``.

    ``wanted``: the batches whose answers were looked for. ``whole``: the provider answered all it was asked, so that
    what it was asked for other batches, which nobody wants any more, is paid for as well.
    """

    price: float | None = 0.0
    tokens: Counter[BatchId] = field(default_factory=Counter)
    weights: Counter[JobId] = field(default_factory=Counter)
    wanted: Collection[BatchId] = ()
    whole: bool = False


def settle_order(
    connection: Connection,
    order_id: str,
    took: OrderCosts,
    *,
    tenant: TenantId,
    place: tuple[CollectionId, str] | None,
    now: float,
) -> None:
    """Charge what an order took, and give back the rest of what was set aside for it.

    ``place``: its collection and model; None where they are gone. What nobody wants any more of a ``whole`` one is
    charged as it was estimated.
    """
    held = connection.execute(sa.select(reservations).where(reservations.c.order_id == order_id)).all()
    if place is None and not held:
        return
    collection_id, model = place or (CollectionId(held[0].collection_id), held[0].model)
    weights, left = took.weights.copy(), took.tokens.copy()
    parts: dict[str, Amounts] = {}
    for row in held:
        if took.whole and row.batch_id not in took.wanted:
            parts[row.id] = in_full(row)
            weights.update(_shared(row))
        else:
            parts[row.id] = _took(left.pop(BatchId(row.batch_id), 0), took.price)
    once = Amounts(calls=1) if took.tokens.total() else Amounts()
    parts[UNRESERVED] = once + _took(left.total(), took.price)
    settle(connection, Payee(tenant, collection_id, model, took.price, weights), parts, at=now)


def give_back_unordered(catalog: Catalog, *, now: float) -> int:
    """Give back what was set aside for batches that were over before they were part of an order. Returns how many.

    Run by anyone, by several at once too; when there is none it reads a little and writes nothing.
    """
    waits = (batches.c.id == reservations.c.batch_id, batches.c.aside_since.is_not(None))
    waiting = sa.exists().where(*waits, batches.c.state.in_(OPEN_BATCH))
    wanted = sa.select(reservations).where(*_OF_ORDERS, reservations.c.order_id.is_(None), ~waiting)
    with catalog.read() as connection:
        found = connection.execute(wanted.order_by(reservations.c.tenant_id).limit(_AT_ONCE)).all()
    if found:
        with catalog.write("give_back_unordered") as connection:
            for _, mine in groupby(found, key=lambda row: row.tenant_id):
                _give_back(connection, list(mine), now=now)
    return len(found)


def _give_back(connection: Connection, rows: Sequence[Row[Any]], *, now: float) -> None:
    """End these reservations of one tenant, for which nothing was paid."""
    if rows:
        payee = Payee(TenantId(rows[0].tenant_id), CollectionId(rows[0].collection_id), rows[0].model, None)
        settle(connection, payee, {row.id: Amounts() for row in rows}, at=now)


def _took(tokens: int, price: float | None) -> Amounts:
    return Amounts(tokens=tokens, cost_usd=cost_of(tokens, price) or 0.0, unpriced_tokens=tokens * (price is None))


def _shared(row: Row[Any]) -> dict[JobId, int]:
    total = sum(row.jobs.values()) or 1
    return {JobId(job_id): row.tokens * weight // total for job_id, weight in row.jobs.items()}
