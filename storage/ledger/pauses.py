"""What is paused: a tenant, or everything. Nothing is handed out for it; what is in hand is finished.

Rows of the ledger, so that a pause outlives every process. Whoever hands work out asks in the same statement.
"""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import installation, tenants
from ..catalog.tenants import require_tenant
from ..ids import TenantId


@dataclass(frozen=True)
class Pauses:
    """``since``: when everything was paused; None where it was not. ``tenants``: those paused on their own."""

    since: float | None
    tenants: tuple[TenantId, ...]

    @property
    def any(self) -> bool:
        return self.since is not None or bool(self.tenants)


def goes_on(tenant_id: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that work of the tenant in this column may be handed out."""
    everything = sa.exists().where(installation.c.paused_at.is_not(None))
    its_own = sa.select(tenants.c.id).where(tenants.c.paused_at.is_not(None))
    return sa.and_(~everything, tenant_id.not_in(its_own))


def pause(catalog: Catalog, *, now: float, tenant: TenantId | None = None) -> float:
    """Pause a tenant, or everything, and return since when it is. Twice is harmless. Raises NotFound."""
    return _set(catalog, tenant, now) or now


def resume(catalog: Catalog, *, tenant: TenantId | None = None) -> None:
    """End the pause of a tenant, or that of everything; the other kind stays. Twice is harmless. Raises NotFound."""
    _set(catalog, tenant, None)


def read_pauses(connection: Connection) -> Pauses:
    """Return what is paused."""
    since = connection.scalar(sa.select(installation.c.paused_at))
    wanted = sa.select(tenants.c.id).where(tenants.c.paused_at.is_not(None)).order_by(tenants.c.id)
    return Pauses(since, tuple(TenantId(found) for found in connection.scalars(wanted)))


def _set(catalog: Catalog, tenant: TenantId | None, at: float | None) -> float | None:
    table = installation if tenant is None else tenants
    mine = sa.true() if tenant is None else tenants.c.id == tenant
    with catalog.write("pause") as connection:
        if tenant is not None:
            require_tenant(connection, tenant)
        value = (
            None if at is None else sa.func.coalesce(table.c.paused_at, at)
        )  # the first pause is the one that is told
        connection.execute(sa.update(table).where(mine).values(paused_at=value))
        return connection.scalar(sa.select(table.c.paused_at).where(mine))
