"""What budgets count: money spent and set aside, of a tenant in a month and of a job. It knows no budget.

Each change is one statement that adds to a row, or refuses to: no two processes find room for the same money.
"""

import calendar
import time
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.statements import insert_absent
from ..catalog.tables import purses, tenants
from ..ids import TenantId

ROUNDING_USD = 1e-9  # sums of fractions are not exact


@dataclass(frozen=True)
class Purse:
    """``spent_usd`` is paid for, ``reserved_usd`` set aside for calls under way."""

    spent_usd: float = 0.0
    reserved_usd: float = 0.0


def month_of(at: float) -> str:
    """Return the month of a moment, in UTC: ``2026-11``."""
    return time.strftime("%Y-%m", time.gmtime(at))


def next_month_at(at: float) -> float:
    """Return when the month after that of ``at`` begins, in UTC."""
    began = time.gmtime(at)
    year, month = (began.tm_year + 1, 1) if began.tm_mon == 12 else (began.tm_year, began.tm_mon + 1)
    return float(calendar.timegm((year, month, 1, 0, 0, 0)))


def of_month(month: str) -> str:
    """Return the name of the purse of a tenant in a month."""
    return f"month:{month}"


def of_job(job_id: str) -> str:
    """Return the name of the purse of a job."""
    return f"job:{job_id}"


def set_aside(
    connection: Connection, tenant: TenantId, wanted: Mapping[str, float], limits: Mapping[str, float]
) -> str:
    """Reserve so much in each of these purses, and return the name of the first that has no room; empty: all had.

    ``limits``: of those that have one. The caller rolls back when one has no room.
    """
    rows = [_row(tenant, name) for name in sorted(wanted)]
    insert_absent(connection, purses, rows)
    for name in sorted(wanted):  # in one order, so that no two wait for each other
        mine = (purses.c.tenant_id == tenant, purses.c.name == name)
        room = purses.c.spent_usd + purses.c.reserved_usd + wanted[name] <= limits.get(name, 0.0) + ROUNDING_USD
        changed = sa.update(purses).where(*mine, *([room] if name in limits else []))
        changed = changed.values(reserved_usd=purses.c.reserved_usd + wanted[name])
        if connection.execute(changed).rowcount != 1:
            return name
    return ""


def pay(connection: Connection, tenant: TenantId, paid: Mapping[str, tuple[float, float]]) -> None:
    """Take from each purse what was spent and what was reserved for it, as (spent, reserved)."""
    names = sorted(paid)
    insert_absent(connection, purses, [_row(tenant, name) for name in names])
    left = purses.c.reserved_usd - sa.bindparam("less", type_=sa.Double)
    changed = sa.update(purses).where(purses.c.tenant_id == tenant, purses.c.name == sa.bindparam("purse"))
    changed = changed.values(
        spent_usd=purses.c.spent_usd + sa.bindparam("more", type_=sa.Double),
        reserved_usd=sa.case((left > ROUNDING_USD, left), else_=0.0),
    )
    rows = [{"purse": name, "more": paid[name][0], "less": paid[name][1]} for name in names]
    if rows:
        connection.execute(changed, rows)


def read_purses(connection: Connection, tenant: TenantId, names: list[str]) -> dict[str, Purse]:
    """Return what is in each of these purses; nothing in those that nobody used yet."""
    wanted = sa.select(purses).where(purses.c.tenant_id == tenant, purses.c.name.in_(names))
    found = {row.name: Purse(row.spent_usd, row.reserved_usd) for row in connection.execute(wanted)}
    return {name: found.get(name, Purse()) for name in names}


def read_month(catalog: Catalog, at: float, *, tenant: TenantId | None = None) -> dict[str, Purse]:
    """Return what is in the purse of each tenant that used it in the month of ``at``; of ``tenant`` alone, if given."""
    # By tenant, as the key has it: there may be a purse of every job, too.
    wanted = sa.select(purses).join(tenants, tenants.c.id == purses.c.tenant_id)
    wanted = wanted.where(purses.c.name == of_month(month_of(at)))
    if tenant is not None:
        wanted = wanted.where(tenants.c.id == tenant)
    with catalog.read() as connection:
        return {row.tenant_id: Purse(row.spent_usd, row.reserved_usd) for row in connection.execute(wanted)}


def _row(tenant: TenantId, name: str) -> dict[str, object]:
    return {"tenant_id": tenant, "name": name, "spent_usd": 0.0, "reserved_usd": 0.0}
