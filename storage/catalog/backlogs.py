"""How much of each tenant waits in the state queued, and how fast it leaves that: for limits, and for who is refused.

It is counted where it comes and where it leaves, in the transaction that does either, so that to accept something looks
at one row however much waits. What leaves in some other way, as with a collection that is deleted, is found by
`measure`, which counts anew: until then too much is taken to wait, never too little. The row of a tenant is changed
last of all in a transaction: whoever holds it waits for nobody.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import BacklogFull, TooMuchAtOnce
from ..ids import TenantId
from .engine import Catalog
from .statements import insert_if_absent
from .tables import IS_QUEUED, backlogs, collections, installation, tenants, versions

LEAST_RETRY_S, MOST_RETRY_S = 1.0, 300.0
UNKNOWN_RETRY_S = 5.0  # nobody has seen yet how fast it leaves
PAUSED_RETRY_S = 60.0
_LOOK_S = 1.0  # a rate over less says little
# Of thousands of tenants a few have something to do.
_MOVING = sa.select(backlogs).where(
    sa.or_(
        backlogs.c.seen_at.is_(None),
        backlogs.c.left_documents > backlogs.c.seen_documents,
        backlogs.c.came_documents > backlogs.c.left_documents,
    )
)


@dataclass(frozen=True)
class Amount:
    """A number of documents, and the sum of their bytes."""

    documents: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.documents + other.documents, self.size_bytes + other.size_bytes)

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(self.documents - other.documents, self.size_bytes - other.size_bytes)


NOTHING = Amount()


@dataclass(frozen=True)
class Backlog:
    """What waits of one tenant, what may, how fast it leaves (None: nobody knows yet), and whether it is paused."""

    waiting: Amount
    most: Amount
    documents_per_s: float | None
    bytes_per_s: float | None
    paused: bool

    def check(self, more: Amount) -> None:
        """Raises TooMuchAtOnce where ``more`` would be too much of an empty backlog, BacklogFull where it is now."""
        if not more.documents:
            return
        asked = (("documents", more.documents, self.most.documents), ("bytes", more.size_bytes, self.most.size_bytes))
        for unit, much, most in asked:
            if much > most:
                told = f"{much:,} {unit} are more than may wait of this tenant at all, which is {most:,}"
                limit = f"limits.max_backlog_{unit} or the tenant's own limit"
                raise TooMuchAtOnce(f"{told}: send less at once, or raise {limit}")
        excess = self.waiting + more - self.most
        if excess.documents > 0 or excess.size_bytes > 0:
            raise BacklogFull(self._told(excess), retry_after_s=self._retry_after_s(excess))

    def check_any(self) -> None:
        """Raises BacklogFull where not even one more document may wait."""
        full = self.waiting.documents >= self.most.documents or self.waiting.size_bytes >= self.most.size_bytes
        if full:
            excess = self.waiting + Amount(1, 1) - self.most
            raise BacklogFull(self._told(excess), retry_after_s=self._retry_after_s(excess))

    def _told(self, excess: Amount) -> str:
        if excess.documents > 0:
            full = f"{self.waiting.documents:,} documents of this tenant wait, and {self.most.documents:,} may"
        else:
            full = f"{self.waiting.size_bytes:,} bytes of this tenant wait, and {self.most.size_bytes:,} may"
        what = "it is paused: resume it, or submit later" if self.paused else "submit it again later"
        return f"nothing was accepted: {full}; {what}"

    def _retry_after_s(self, excess: Amount) -> float:
        if self.paused:
            return PAUSED_RETRY_S
        rates = ((excess.documents, self.documents_per_s), (excess.size_bytes, self.bytes_per_s))
        known = [max(0, much) / rate for much, rate in rates if rate]
        return min(MOST_RETRY_S, max(LEAST_RETRY_S, *known)) if known else UNKNOWN_RETRY_S


def read_backlog(connection: Connection, tenant: TenantId, *, most: Amount) -> Backlog:
    """Return the backlog of a tenant; ``most``: what may wait of a tenant without limits of its own."""
    paused = sa.or_(tenants.c.paused_at.is_not(None), sa.exists().where(installation.c.paused_at.is_not(None)))
    own = (tenants.c.max_backlog_documents, tenants.c.max_backlog_bytes)
    wanted = sa.select(backlogs, *own, paused.label("paused")).select_from(tenants)
    wanted = wanted.join(backlogs, backlogs.c.tenant_id == tenants.c.id, isouter=True).where(tenants.c.id == tenant)
    row = connection.execute(wanted).first()
    if row is None:  # whoever asks more of this tenant hears that there is none
        return Backlog(NOTHING, most, None, None, paused=False)
    documents = most.documents if row.max_backlog_documents is None else row.max_backlog_documents
    size_bytes = most.size_bytes if row.max_backlog_bytes is None else row.max_backlog_bytes
    limit = Amount(documents, size_bytes)
    return Backlog(waiting_of(row), limit, row.documents_per_s, row.bytes_per_s, paused=bool(row.paused))


def waiting_of(row: Row[Any]) -> Amount:
    """Return what waits by a row of the table; nothing where there is none."""
    if row.came_documents is None:
        return NOTHING
    found = Amount(row.came_documents, row.came_bytes) - Amount(row.left_documents, row.left_bytes)
    return Amount(max(0, found.documents), max(0, found.size_bytes))


def check_backlog(catalog: Catalog, tenant: TenantId, *, most: Amount) -> None:
    """Return if anything more may wait of the tenant: a look before a long upload. Raises BacklogFull."""
    with catalog.read() as connection:
        read_backlog(connection, tenant, most=most).check_any()


def count_came(connection: Connection, tenant: TenantId, more: Amount, *, most: Amount | None = None) -> None:
    """Count what comes to wait, if that is not too much: who comes at the same time waits for the commit.

    Raises BacklogFull, TooMuchAtOnce: roll back. ``most`` is that of `read_backlog`; None: it may be too much.
    """
    if not more.documents:
        return
    _ensure(connection, tenant)
    came = sa.update(backlogs).where(backlogs.c.tenant_id == tenant)
    values = {"came_documents": backlogs.c.came_documents + more.documents}
    connection.execute(came.values(values | {"came_bytes": backlogs.c.came_bytes + more.size_bytes}))
    if most is not None:
        after = read_backlog(connection, tenant, most=most)
        before = Backlog(after.waiting - more, after.most, after.documents_per_s, after.bytes_per_s, after.paused)
        before.check(more)


def count_left(connection: Connection, left: Mapping[TenantId, Amount]) -> None:
    """Count what does not wait any more, by tenant."""
    for tenant in sorted(tenant for tenant, amount in left.items() if amount.documents):
        amount = left[tenant]
        _ensure(connection, tenant)
        gone = sa.update(backlogs).where(backlogs.c.tenant_id == tenant)
        values = {"left_documents": backlogs.c.left_documents + amount.documents}
        connection.execute(gone.values(values | {"left_bytes": backlogs.c.left_bytes + amount.size_bytes}))


def waiting_in(connection: Connection, chosen: sa.ColumnElement[bool]) -> dict[TenantId, Amount]:
    """Return what waits among the versions that are chosen, by tenant: for `count_left`, before they go."""
    counted = sa.select(versions.c.tenant_id, sa.func.count(), sa.func.sum(versions.c.size_bytes))
    rows = connection.execute(counted.where(chosen).group_by(versions.c.tenant_id))
    return {TenantId(tenant): Amount(documents, int(size_bytes)) for tenant, documents, size_bytes in rows}


def measure(catalog: Catalog, *, now: float, recount: bool = False) -> None:
    """Take note of how fast what waits leaves; with ``recount`` also look how much really waits.

    The count and the counters are of one state of the ledger, and only their difference is written: what comes and
    leaves meanwhile stays counted.
    """
    with catalog.read() as connection:
        rows = connection.execute(sa.select(backlogs) if recount else _MOVING).all()
        found = _counted(connection) if recount else None
    changes = {row.tenant_id: change for row in rows if (change := _change(row, found, now=now))}
    missing = set() if found is None else found.keys() - {row.tenant_id for row in rows}
    if not changes and not missing:
        return
    with catalog.write("measure_backlogs") as connection:
        for tenant in sorted({*changes, *missing}):  # as in `count_left`: two dispatchers must not wait in a ring
            if tenant in changes:
                changed = sa.update(backlogs).where(backlogs.c.tenant_id == tenant)
                connection.execute(changed.values(changes[tenant]))
            else:
                _ensure(connection, TenantId(tenant))  # its counters are put right next time


def _change(row: Row[Any], found: Mapping[str, Amount] | None, *, now: float) -> dict[str, Any]:
    """Return the columns of a row that are to be changed."""
    change: dict[str, Any] = {}
    if found is not None:
        counted = Amount(row.came_documents, row.came_bytes) - Amount(row.left_documents, row.left_bytes)
        too_many = counted - found.get(row.tenant_id, NOTHING)
        if too_many != NOTHING:
            change["left_documents"] = backlogs.c.left_documents + too_many.documents
            change["left_bytes"] = backlogs.c.left_bytes + too_many.size_bytes
    left = row.left_documents - row.seen_documents, row.left_bytes - row.seen_bytes
    waits = waiting_of(row).documents > 0
    if row.seen_at is None or (now - row.seen_at >= _LOOK_S and (left[0] > 0 or waits)):
        change |= {"seen_documents": row.left_documents, "seen_bytes": row.left_bytes, "seen_at": now}
        if row.seen_at is not None:
            over_s = now - row.seen_at
            change["documents_per_s"] = _smoothed(row.documents_per_s, left[0] / over_s)
            change["bytes_per_s"] = _smoothed(row.bytes_per_s, left[1] / over_s)
    return change


def _smoothed(before: float | None, now: float) -> float:
    return max(0.0, now if before is None else (before + now) / 2)


def _counted(connection: Connection) -> dict[str, Amount]:
    """Return what waits, by tenant: a walk over one index, which holds nothing else."""
    sums = (sa.func.count(), sa.func.coalesce(sa.func.sum(versions.c.size_bytes), 0))
    counted = sa.select(versions.c.collection_id, *sums).where(IS_QUEUED).group_by(versions.c.collection_id)
    owners = sa.select(collections.c.id, collections.c.tenant_id)
    owner = {row.id: row.tenant_id for row in connection.execute(owners)}
    found: dict[str, Amount] = {}
    for collection, documents, size_bytes in connection.execute(counted):
        tenant = owner[collection]
        found[tenant] = found.get(tenant, NOTHING) + Amount(documents, int(size_bytes))
    return found


def _ensure(connection: Connection, tenant: TenantId) -> None:
    if connection.scalar(sa.select(backlogs.c.tenant_id).where(backlogs.c.tenant_id == tenant)) is None:
        insert_if_absent(connection, backlogs, {"tenant_id": tenant})
