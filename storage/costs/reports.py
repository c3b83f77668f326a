"""What was spent: sums of the costs by day, tenant, collection, job or model. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import costs
from ..ids import TenantId
from .amounts import HOUR_S, NAMES, Amounts

Group = Literal["day", "tenant", "collection", "job", "model"]
GROUPS: tuple[Group, ...] = get_args(Group)
_DAY = 24  # hours


@dataclass(frozen=True)
class CostRow:
    """``named``: what the row is the sum of; ``job`` None: of searches. ``collection_id`` beside ``collection``."""

    named: dict[str, str | None]
    amounts: Amounts


def read_costs(
    catalog: Catalog,
    *,
    by: Sequence[Group],
    tenant: TenantId | None = None,
    since: float | None = None,
    until: float | None = None,
    limit: int = 1_000,
) -> list[CostRow]:
    """Return up to ``limit`` sums: by day in order of days, else what cost most first. ``tenant`` None: of all.

    ``since`` and ``until``: only hours that begin at or after the one, and before the other.
    """
    keys = [column for group in by for column in _columns(group)]
    sums = [sa.func.sum(costs.c[name]).label(name) for name in NAMES]
    wanted = sa.select(*keys, *sums).group_by(*keys) if keys else sa.select(*sums)
    if tenant is not None:
        wanted = wanted.where(costs.c.tenant_id == tenant)
    if since is not None:
        wanted = wanted.where(costs.c.hour * HOUR_S >= since)
    if until is not None:
        wanted = wanted.where(costs.c.hour * HOUR_S < until)
    dearest = (sa.desc("cost_usd"), sa.desc("tokens"), *keys)
    wanted = wanted.order_by(*([sa.column("day")] if "day" in by else []), *dearest).limit(limit)
    with catalog.read() as connection:
        rows = connection.execute(wanted).all()
    return [CostRow(_named(row, by), _amounts(row)) for row in rows if row.calls is not None]


def _columns(group: Group) -> list[sa.ColumnElement[Any]]:
    match group:
        case "day":
            return [(costs.c.hour // sa.literal_column(str(_DAY))).label("day")]
        case "tenant":
            return [costs.c.tenant_id]
        case "collection":
            return [costs.c.collection_id, costs.c.collection]
        case "job":
            return [costs.c.job_id]
        case "model":
            return [costs.c.model]


def _named(row: Any, by: Sequence[Group]) -> dict[str, str | None]:
    named: dict[str, str | None] = {}
    for group in by:
        match group:
            case "day":
                named["day"] = datetime.fromtimestamp(int(row.day) * _DAY * HOUR_S, UTC).date().isoformat()
            case "tenant":
                named["tenant"] = row.tenant_id
            case "collection":
                named["collection"], named["collection_id"] = row.collection, row.collection_id
            case "job":
                named["job"] = row.job_id or None
            case "model":
                named["model"] = row.model
    return named


def _amounts(row: Any) -> Amounts:
    values: dict[str, Any] = {}
    for name in NAMES:
        value = getattr(row, name)  # of whole numbers PostgreSQL makes sums of another type
        values[name] = float(value) if name.endswith("_usd") else int(value)
    return Amounts(**values)
