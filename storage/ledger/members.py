"""The embed batches of an order: what each asks for, and for whom. Reads only."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import batches, versions
from ..catalog.values import slices
from ..ids import BatchId, JobId
from .contents import STATES_IN
from .orders import IS_ASIDE, Order


@dataclass(frozen=True)
class Member:
    """An embed batch of an order: the ``rows`` of its staged chunks to buy; the job of each version still wanted.

    ``repeated``: those of the rows whose texts another batch of the order asks for.
    """

    batch_id: BatchId
    input: str
    rows: tuple[int, ...]
    jobs: Mapping[str, JobId]
    repeated: frozenset[int] = frozenset()


def read_members(catalog: Catalog, order: Order) -> list[Member]:
    """Return the batches of an order that are still wanted, by id; of each, the versions that are."""
    mine = sa.select(batches).where(batches.c.order_id == order.id, *IS_ASIDE).order_by(batches.c.id)
    members = []
    with catalog.read() as connection:
        rows = connection.execute(mine).all()
        for row, jobs in zip(rows, _jobs_of(connection, rows), strict=True):
            asked = row.details.get("wanted", {})
            chunks, chosen = asked.get("chunks") or row.input, tuple(asked.get("rows", ()))
            repeated = frozenset(order.repeated.get(row.id, ()))
            members += [Member(BatchId(row.id), chunks, chosen, jobs, repeated)] if jobs else []
    return members


def _jobs_of(connection: Connection, rows: Sequence[Row[Any]]) -> list[dict[str, JobId]]:
    """Return for each batch the job of each version still wanted. A re-embedding, which has none, is told as a job."""
    found: dict[str, dict[str, JobId]] = defaultdict(dict)  # by group
    wanted = sa.select(versions.c.batch_id, versions.c.id, versions.c.job_id)
    for some in slices(sorted({row.group_id for row in rows if row.reembedding_id is None})):
        mine = wanted.where(versions.c.batch_id.in_(some), versions.c.state.in_(STATES_IN["embed"]))
        for version in connection.execute(mine):
            found[version.batch_id][version.id] = JobId(version.job_id)
    return [
        {"": JobId(row.reembedding_id)}
        if row.reembedding_id is not None
        else {name: found[row.group_id][name] for name in row.details["versions"] if name in found[row.group_id]}
        for row in rows
    ]
