"""What a backup holds of the catalog: everything, or one collection with all that belongs to it.

A table is taken by what its rows are about, which their columns say: a table that is added need not be listed here.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from ..catalog.tables import (
    collections,
    generations,
    metadata,
    reader_leases,
    recorded_queries,
    schedules,
    shards,
    tenants,
)
from ..ids import CollectionId, TenantId

EVERYTHING = "everything"
LEFT_OUT = (
    reader_leases,  # of processes that read here, now
    recorded_queries,  # what people searched for is forgotten after a while, wherever it is
)


@dataclass(frozen=True)
class Scope:
    """Everything; or with a tenant, one collection of it: both are given or neither."""

    tenant: TenantId | None = None
    collection_id: CollectionId | None = None

    @property
    def word(self) -> str:
        return EVERYTHING if self.collection_id is None else str(self.collection_id)


def tables_of(scope: Scope) -> Iterator[tuple[sa.Table, sa.ColumnElement[bool]]]:
    """Yield the tables of a backup and which rows of each, parents first."""
    for table in metadata.sorted_tables:
        condition = sa.true() if scope.collection_id is None else _of_collection(table, scope)
        if table not in LEFT_OUT and condition is not None:
            yield table, condition


def _of_collection(table: sa.Table, scope: Scope) -> sa.ColumnElement[bool] | None:
    """Return which rows of a table belong to a collection; None: they are of its tenant or of the installation."""
    if table is shards:  # epochs only rise: a generation that was written under one must not meet a lower one
        return sa.true()
    if table is tenants:
        return tenants.c.id == scope.tenant
    if table is collections:
        return collections.c.id == scope.collection_id
    if "collection_id" in table.c:
        return table.c.collection_id == scope.collection_id
    for column, owner in (("generation_id", generations), ("schedule_id", schedules)):
        if column in table.c:
            mine = sa.select(owner.c.id).where(owner.c.collection_id == scope.collection_id)
            return table.c[column].in_(mine)
    return None
