"""The rows of costs: sums, to which is added. It reads none of them and decides nothing."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection

from ..catalog.tables import collections, costs
from ..catalog.values import slices
from .amounts import NAMES, Amounts

OF_SEARCHES = ""  # the job of what no job asked for


class CostKey(NamedTuple):
    """What a row is the sum of. In this order rows are written, so that no two transactions wait for each other."""

    tenant_id: str
    hour: int
    collection_id: str
    job_id: str
    model: str


def write_costs(connection: Connection, entries: Mapping[CostKey, Amounts]) -> None:
    """Add these amounts to their rows."""
    wanted = {key: amounts for key, amounts in sorted(entries.items()) if amounts}
    if not wanted:
        return
    names = _names(connection, sorted({key.collection_id for key in wanted}))
    rows = [
        {**key._asdict(), "collection": names.get(key.collection_id, key.collection_id), **asdict(amounts)}
        for key, amounts in wanted.items()
    ]
    insert = (sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert)(costs)
    more = {name: costs.c[name] + insert.excluded[name] for name in NAMES}
    connection.execute(insert.on_conflict_do_update(index_elements=CostKey._fields, set_=more), rows)


def _names(connection: Connection, ids: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for some in slices(ids):
        rows = connection.execute(sa.select(collections.c.id, collections.c.name).where(collections.c.id.in_(some)))
        found |= {row.id: row.name for row in rows}
    return found
