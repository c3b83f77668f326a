"""Sweeps of collectors, numbered in the row that guards what they delete: a generation's, or a tenant's.

A sweep is begun in a transaction of its own, and ends in the one that holds the row and deletes; only the one that was
begun last may. So whoever reads that sweep n has ended, and later, holding the row, that none was begun since, knows
that nothing was deleted in between. One whose process died stays under way until the next one ends.
"""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import GenerationId, TenantId
from .engine import Catalog
from .tables import generations, tenants


@dataclass(frozen=True)
class Guard:
    """The row that guards objects: whoever holds it alone may delete, whoever shares it may name them."""

    table: sa.Table
    id: str


def guard_of_generation(generation_id: GenerationId) -> Guard:
    return Guard(generations, generation_id)


def guard_of_tenant(tenant: TenantId) -> Guard:
    return Guard(tenants, tenant)


def ended_sweep(connection: Connection, guard: Guard) -> int | None:
    """Return the number of the sweep that was begun last. None: it has not ended, or there is no such row."""
    row = guard.table.c
    ended = sa.select(row.sweeps_begun).where(row.id == guard.id, row.sweeps_begun == row.sweeps_ended)
    number: int | None = connection.scalar(ended)
    return number


def begin_sweep(catalog: Catalog, guard: Guard) -> int | None:
    """Return the number of a new sweep; None: there is no such row. Those begun before may not delete any more."""
    row = guard.table.c
    begun = sa.update(guard.table).where(row.id == guard.id).values(sweeps_begun=row.sweeps_begun + 1)
    with catalog.write("begin_sweep") as connection:
        number: int | None = connection.scalar(begun.returning(row.sweeps_begun))
        return number


def end_sweep(connection: Connection, guard: Guard, number: int) -> bool:
    """Hold the row alone, and let the sweep end with this transaction, in which it deletes. False: it must not."""
    row = guard.table.c
    mine = sa.update(guard.table).where(row.id == guard.id, row.sweeps_begun == number)
    return connection.execute(mine.values(sweeps_ended=number)).rowcount == 1
