"""Webhooks on their way: claims with a lease and an attempt counted before it is made, and how they end.

A delivery that is sent twice has the same id. Nothing here connects anywhere.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import IS_OPEN_DELIVERY, IS_SENDING, deliveries, tenants
from ..catalog.values import storable
from ..errors import Conflict, NotFound
from ..ids import JobId, TenantId

KEPT_S = 7 * 86_400.0  # what is over is listed so long


@dataclass(frozen=True)
class DeliveryInfo:
    """One delivery: ``waiting``, ``sending``, ``delivered``, ``dead`` (given up) or ``dropped`` (nothing to tell)."""

    id: str
    tenant_id: TenantId
    job_id: JobId
    url: str
    state: str
    attempts: int
    next_attempt_at: float
    status: int | None
    error: str | None
    created_at: float
    finished_at: float | None


def claim_deliveries(
    catalog: Catalog, *, owner: str, lease_s: float, now: float, limit: int, per_tenant: int
) -> list[DeliveryInfo]:
    """Take up to ``limit`` that are due, or whose sender let its claim lapse; of a tenant ``per_tenant`` at once.

    So a receiver that answers slowly holds up its own tenant alone. Which come next is found out before the write lock
    is taken, by a few index probes per tenant, however many are due.
    """
    due = (IS_OPEN_DELIVERY, deliveries.c.next_attempt_at <= now)
    with catalog.read() as connection:
        if connection.scalar(sa.select(deliveries.c.id).where(*due).limit(1)) is None:
            return []
        chosen = _next_of_each(connection, now=now, limit=limit, per_tenant=per_tenant)
    if not chosen:
        return []
    with catalog.write("claim_deliveries") as connection:
        room = {tenant: per_tenant - taken for tenant, taken in _under_way(connection, now=now).items()}
        held = sa.select(deliveries.c.id, deliveries.c.tenant_id).where(deliveries.c.id.in_(chosen), *due)
        ids: list[str] = []
        for row in connection.execute(held.order_by(deliveries.c.id).with_for_update(skip_locked=True)).all():
            room[row.tenant_id] = room.get(row.tenant_id, per_tenant) - 1  # others may have taken some meanwhile
            ids += [row.id] if room[row.tenant_id] >= 0 else []
        values = {"state": "sending", "owner": owner, "next_attempt_at": now + lease_s}
        taken = sa.update(deliveries).where(deliveries.c.id.in_(ids))
        taken = taken.values(attempts=deliveries.c.attempts + 1, **values).returning(deliveries)
        return sorted((_info(row) for row in connection.execute(taken)), key=lambda one: one.id) if ids else []


def _under_way(connection: Connection, *, now: float) -> Counter[str]:
    """Return how many are being sent, by tenant."""
    busy = sa.select(deliveries.c.tenant_id, sa.func.count())
    busy = busy.where(IS_SENDING, deliveries.c.next_attempt_at > now).group_by(deliveries.c.tenant_id)
    return Counter(dict(map(tuple, connection.execute(busy))))


def _next_of_each(connection: Connection, *, now: float, limit: int, per_tenant: int) -> list[str]:
    """Return what is to be sent next: the first of each tenant, whoever waits longest first, then the second ones."""
    under_way = _under_way(connection, now=now)
    full = [tenant for tenant, count in under_way.items() if count >= per_tenant]
    mine = (IS_OPEN_DELIVERY, deliveries.c.tenant_id == tenants.c.id)
    first_at = sa.select(sa.func.min(deliveries.c.next_attempt_at)).where(*mine).scalar_subquery()
    waiting = sa.select(tenants.c.id).where(tenants.c.id.not_in(full), first_at <= now)
    order = connection.scalars(waiting.order_by(first_at, tenants.c.id).limit(limit)).all()
    due = sa.select(deliveries.c.id).where(*mine, deliveries.c.next_attempt_at <= now)
    due = due.order_by(deliveries.c.next_attempt_at, deliveries.c.id).limit(1)
    places = [due.offset(place).scalar_subquery().label(f"place_{place}") for place in range(per_tenant)]
    wanted = sa.select(tenants.c.id, *places).where(tenants.c.id.in_(order))
    found = {tenant: ids[: per_tenant - under_way[tenant]] for tenant, *ids in connection.execute(wanted)}
    turns = zip_longest(*(found[tenant] for tenant in order))
    return [one for turn in turns for one in turn if one is not None][:limit]


def end_delivery(
    catalog: Catalog,
    delivery: DeliveryInfo,
    *,
    state: str,
    now: float,
    status: int | None = None,
    error: str | None = None,
) -> None:
    """End a claimed delivery as ``delivered``, ``dead`` or ``dropped``. One that was taken over stays as it is."""
    ended = {"state": state, "owner": None, "status": status, "finished_at": now}
    _record(catalog, delivery, error=error, **ended)


def retry_delivery(
    catalog: Catalog, delivery: DeliveryInfo, *, at: float, status: int | None = None, error: str | None = None
) -> None:
    """Let a claimed delivery be tried again ``at`` that moment. One that was taken over stays as it is."""
    _record(catalog, delivery, state="waiting", owner=None, next_attempt_at=at, status=status, error=error)


def list_deliveries(
    catalog: Catalog, *, tenant: TenantId, limit: int = 100, after: str | None = None, state: str | None = None
) -> list[DeliveryInfo]:
    """Return a tenant's deliveries, newest first; the next page begins ``after`` the last one.

    Raises:
        NotFound: the tenant has no delivery ``after``.
    """
    mine = deliveries.c.tenant_id == tenant
    wanted = sa.select(deliveries).where(mine).order_by(deliveries.c.id.desc()).limit(limit)
    if state is not None:
        wanted = wanted.where(deliveries.c.state == state)
    with catalog.read() as connection:
        if after is not None:
            if connection.scalar(sa.select(deliveries.c.id).where(mine, deliveries.c.id == after)) is None:
                raise _not_found(after)
            wanted = wanted.where(deliveries.c.id < after)
        return [_info(row) for row in connection.execute(wanted)]


def send_again(catalog: Catalog, *, tenant: TenantId, delivery_id: str, now: float) -> DeliveryInfo:
    """Begin a delivery that is over anew, with all its attempts. Raises NotFound, or Conflict when it is under way."""
    mine = (deliveries.c.id == delivery_id, deliveries.c.tenant_id == tenant)
    with catalog.write("send_again") as connection:
        again = sa.update(deliveries).where(*mine, deliveries.c.finished_at.is_not(None))
        begun = {"state": "waiting", "attempts": 0, "next_attempt_at": now, "finished_at": None, "error": None}
        row = connection.execute(again.values(begun).returning(deliveries)).first()
        if row is None and connection.scalar(sa.select(deliveries.c.id).where(*mine)) is None:
            raise _not_found(delivery_id)
        if row is None:
            raise Conflict(f"delivery {delivery_id} is under way: it is tried again by itself")
    return _info(row)


def forget_deliveries(catalog: Catalog, *, now: float) -> int:
    """Delete those that are over for a week, a thousand at once. Returns how many."""
    old = sa.select(deliveries.c.id).where(
        deliveries.c.finished_at.is_not(None), deliveries.c.finished_at < now - KEPT_S
    )
    with catalog.read() as connection:
        if connection.scalar(old.limit(1)) is None:
            return 0
    with catalog.write("forget_deliveries") as connection:
        oldest = old.order_by(deliveries.c.finished_at).limit(1_000)
        return connection.execute(sa.delete(deliveries).where(deliveries.c.id.in_(oldest))).rowcount


def _record(catalog: Catalog, delivery: DeliveryInfo, *, error: str | None, **values: Any) -> None:
    mine = (deliveries.c.id == delivery.id, deliveries.c.attempts == delivery.attempts, deliveries.c.state == "sending")
    with catalog.write("record_delivery") as connection:
        told = None if error is None else storable(error)
        connection.execute(sa.update(deliveries).where(*mine).values(error=told, **values))


def _not_found(delivery_id: str) -> NotFound:
    return NotFound(f"there is no delivery {delivery_id!r}: what is over is forgotten after a week")


def _info(row: Row[Any]) -> DeliveryInfo:
    return DeliveryInfo(**{name: getattr(row, name) for name in DeliveryInfo.__dataclass_fields__})
