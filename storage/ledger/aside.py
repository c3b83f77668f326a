"""Embed batches that are put aside, to be bought together from a provider that gives time for half the price.

One that is put aside stays in the stage, ready, with a time far away: should nobody order it, it comes back by itself.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from ..catalog.batches import PAUSED_FROM
from ..catalog.engine import Catalog
from ..catalog.tables import batches, orders
from ..costs import Payee, set_aside_for_order
from ..ids import BatchId
from .claims import Claim, is_held, lost
from .orders import IS_ASIDE, MOST_CHUNKS, PATIENT_S, insert_order, waiting_for_order
from .pauses import goes_on


@dataclass(frozen=True)
class Trip:
    """What orders brought for an embed batch: the staged ``objects``, and how many times it was ``ordered``.

    ``is_open``: it belongs to an order that is not over.
    """

    ordered: int = 0
    objects: tuple[str, ...] = ()
    is_open: bool = False


def staged_for_orders(details: Mapping[str, Any]) -> list[str]:
    """Return the staged objects that an embed batch has beside its input: what it orders from, and what orders brought.

    ``details``: of the batch.
    """
    asked = details.get("wanted", {}).get("chunks")
    return [*([asked] if asked else []), *details.get("ordered", {}).get("objects", ())]


def trip_of(catalog: Catalog, batch_id: BatchId) -> Trip:
    """Return what orders brought for an embed batch so far."""
    still_open = sa.exists().where(orders.c.id == batches.c.order_id, orders.c.state != "over")
    with catalog.read() as connection:
        wanted = sa.select(batches.c.details, still_open.label("is_open")).where(batches.c.id == batch_id)
        row = connection.execute(wanted).first()
    if row is None:
        return Trip()
    told = (row.details or {}).get("ordered", {})
    return Trip(int(told.get("times", 0)), tuple(told.get("objects", ())), bool(row.is_open))


def put_aside(
    catalog: Catalog,
    claim: Claim,
    *,
    rows: Sequence[int],
    tokens: int,
    payee: Payee,
    reason: str,
    now: float,
    chunks: str | None = None,
) -> None:
    """Hand an embed batch back to be ordered: the ``rows`` of its chunks need ``tokens``. No attempt is counted.

    What that costs ``payee`` is set aside with it. ``chunks``: the staged object of its chunks, where that is not its
    input.

    Raises:
        Conflict: the claim was lost; nothing was changed.
        OverBudget: as `costs.reserve`; nothing was changed.
    """
    with catalog.write("put_aside") as connection:
        row = connection.execute(sa.select(batches).where(*is_held(claim))).first()
        if row is None:
            raise lost(claim)
        # Its order is held until the commit: who ends it afterwards sees this batch.
        is_open = sa.select(orders.c.id).where(orders.c.id == row.order_id, orders.c.state != "over").with_for_update()
        still_ordered = row.order_id is not None and connection.scalar(is_open) is not None
        if not still_ordered:
            set_aside_for_order(connection, payee, tokens, batch_id=claim.batch_id, now=now)
        # What an order asks for stays as it is: its answers are told apart by it.
        asked = {"rows": list(rows), "tokens": tokens, "chunks": chunks}
        details = row.details if still_ordered else {**row.details, "wanted": asked}
        values = {
            "order_id": row.order_id if still_ordered else None,
            "details": details,
            **waiting_for_order(reason),
            "next_attempt_at": now + PATIENT_S,
        }
        aside = sa.update(batches).where(*is_held(claim)).values(owner=None, lease_until=None, **values)
        aside = aside.values(state="ready", attempts=row.attempts - 1, aside_since=row.aside_since or now)
        if connection.execute(aside).rowcount != 1:
            raise lost(claim)


def gather(catalog: Catalog, *, now: float, wait_s: float, most_chunks: int = MOST_CHUNKS) -> list[str]:
    """Make orders of what was put aside, of each generation for itself, and return their ids.

    One is made when it is full, or its first batch has waited ``wait_s``.
    """
    mine = (*IS_ASIDE, batches.c.order_id.is_(None), batches.c.next_attempt_at < PAUSED_FROM)
    waiting = sa.select(batches).where(*mine, goes_on(batches.c.tenant_id))
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(batches.c.id).where(*mine).limit(1)) is None:
            return []
    made = []
    with catalog.write("gather_orders") as connection:
        by_generation: dict[str, list[Row[Any]]] = defaultdict(list)
        for row in connection.execute(waiting.order_by(batches.c.id).with_for_update(skip_locked=True)):
            by_generation[row.generation_id].append(row)
        for rows in by_generation.values():
            for some in _filled(rows, most_chunks):
                is_due = min(row.aside_since for row in some) <= now - wait_s
                if is_due or sum(row.chunk_count for row in some) > most_chunks - some[-1].chunk_count:
                    made.append(insert_order(connection, some, now=now))
    return made


def _filled(rows: Sequence[Row[Any]], most_chunks: int) -> list[list[Row[Any]]]:
    found: list[list[Row[Any]]] = []
    chunks = most_chunks
    for row in rows:
        if chunks + row.chunk_count > most_chunks:
            found.append([])
            chunks = 0
        found[-1].append(row)
        chunks += row.chunk_count
    return found
