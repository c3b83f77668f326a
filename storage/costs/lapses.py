"""What was set aside by somebody who died before settling it: charged in full, for the call may have been paid for."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from ..catalog.engine import Catalog
from ..catalog.tables import batches, reservations
from ..ids import CollectionId, TenantId
from .amounts import Amounts
from .bills import settle
from .payees import Payee

_AT_ONCE = 200
GRACE_S = 30.0  # whoever is about to settle comes first


def charge_lapsed(catalog: Catalog, *, now: float) -> int:
    """Charge reservations whose attempt is over, or whose time is. Returns how many.

    Run by anyone, by several at once too; when there is none it reads a little and writes nothing.
    """
    with catalog.read() as connection:
        found = connection.execute(_lapsed(now).limit(_AT_ONCE)).all()
    for row in found:  # rare
        with catalog.write("charge_lapsed") as connection:
            settle(connection, _payee(row), {row.id: in_full(row)}, at=row.made_at)
    return len(found)


def _lapsed(now: float) -> sa.Select[Any]:
    working = sa.exists().where(
        batches.c.id == reservations.c.batch_id,
        batches.c.state == "running",
        batches.c.attempts == reservations.c.attempt,
    )
    over = sa.and_(reservations.c.attempt.is_not(None), ~working, reservations.c.made_at < now - GRACE_S)
    return sa.select(reservations).where(sa.or_(over, reservations.c.expires_at < now)).order_by(reservations.c.id)


def _payee(row: Row[Any]) -> Payee:
    return Payee(TenantId(row.tenant_id), CollectionId(row.collection_id), row.model, None, row.jobs)


def in_full(row: Row[Any]) -> Amounts:
    """Return what a reservation is charged of which nobody knows what was paid."""
    unpriced = row.tokens if row.cost_usd is None else 0
    return Amounts(1, 1, row.tokens, row.cost_usd or 0.0, unpriced)
