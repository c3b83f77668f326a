"""Merges that were given up: how often in a row, why, and when their generation may have one again.

What failed at every attempt may fail again, after hours of work: so each further time it waits longer. Nothing is lost
meanwhile, and searches go through the segments as they are.
"""

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.tables import batches, collections, generations
from ..catalog.values import slices
from ..ids import GenerationId, TenantId

FIRST_S = 60.0
LONGEST_S = 6 * 3_600.0
MOST_SHOWN = 20


@dataclass(frozen=True)
class Setback:
    """``count``: merges given up since the last one that was swapped in; the rest is of the last of them.

    ``took_s``: from its first attempt until it was given up.
    """

    count: int
    given_up_at: float
    took_s: float
    error: str | None

    @property
    def again_at(self) -> float:
        """When the next one may be opened: later each time, and no sooner than after as long as the last one took."""
        delay_s: float = FIRST_S * 2 ** min(self.count - 1, 30)
        return self.given_up_at + min(LONGEST_S, max(delay_s, self.took_s))


@dataclass(frozen=True)
class CollectionSetback:
    """Whose merges were given up."""

    tenant_id: TenantId
    collection: str
    setback: Setback


def read_setbacks(
    connection: Connection, generation_ids: Collection[str], *, max_attempts: int
) -> dict[GenerationId, Setback]:
    """Return the setbacks of those of these generations that have one.

    ``max_attempts``: after so many a merge is given up.
    """
    found: dict[GenerationId, Setback] = {}
    for some in slices(sorted(generation_ids)):
        rows = connection.execute(_given_up(max_attempts).where(batches.c.generation_id.in_(some)))
        for row in rows:
            former = found.get(row.generation_id)
            count = 1 if former is None else former.count + 1
            took_s = max(0.0, row.finished_at - (row.first_attempt_at or row.created_at))
            found[GenerationId(row.generation_id)] = Setback(count, row.finished_at, took_s, row.error)
    return found


def list_setbacks(catalog: Catalog, *, max_attempts: int) -> list[CollectionSetback]:
    """Return up to `MOST_SHOWN` collections whose merges were given up, of all tenants."""
    failed = _given_up(max_attempts).with_only_columns(batches.c.generation_id, maintain_column_froms=True)
    named = sa.select(generations.c.id, collections.c.tenant_id, collections.c.name)
    named = named.join(collections, collections.c.id == generations.c.collection_id)
    named = named.where(generations.c.id.in_(failed.order_by(None)), generations.c.state.in_(("active", "building")))
    with catalog.read() as connection:
        rows = connection.execute(named.order_by(collections.c.tenant_id, collections.c.name).limit(MOST_SHOWN)).all()
        found = read_setbacks(connection, [row.id for row in rows], max_attempts=max_attempts)
    return [CollectionSetback(TenantId(row.tenant_id), row.name, found[row.id]) for row in rows if row.id in found]


def _given_up(max_attempts: int) -> sa.Select[tuple[str, float, float | None, float, str | None]]:
    """Return the statement for merges and swaps that were given up since their generation's last swap, in order."""
    swaps = batches.alias("swaps")
    swapped = (swaps.c.generation_id == batches.c.generation_id, swaps.c.stage == "swap", swaps.c.state == "done")
    since = sa.select(sa.func.max(swaps.c.finished_at)).where(*swapped).scalar_subquery()
    told = ("generation_id", "finished_at", "first_attempt_at", "created_at", "error")
    return (
        sa.select(*(batches.c[name] for name in told))
        .where(batches.c.stage.in_(("merge", "swap")), batches.c.state == "dead", batches.c.attempts >= max_attempts)
        .where(batches.c.finished_at > sa.func.coalesce(since, 0.0))
        .order_by(batches.c.finished_at, batches.c.id)
    )
