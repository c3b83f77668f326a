"""What people asked for: schedules of a collection, and those of the installation, which no tenant has.

Whoever names a schedule says whose it is. One of another tenant, or of the installation, is not there for a tenant.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import collections, schedule_runs, schedules
from ..errors import LimitReached, NotFound
from ..ids import CollectionId, ScheduleId, TenantId, new_id
from ..limits import MAX_SCHEDULES_PER_TENANT
from .history import RunInfo, last_runs
from .times import Cadence, checked_cadence


@dataclass(frozen=True)
class Owner:
    """Whose schedules are meant: a tenant's, of all its collections or of one; without a tenant the installation's."""

    tenant: TenantId | None = None
    collection_id: CollectionId | None = None

    def owns(self) -> tuple[sa.ColumnElement[bool], ...]:
        mine = schedules.c.tenant_id.is_(None) if self.tenant is None else schedules.c.tenant_id == self.tenant
        return (mine,) if self.collection_id is None else (mine, schedules.c.collection_id == self.collection_id)


@dataclass(frozen=True)
class NewSchedule:
    """``options``: of the action, checked by whoever knows what it does."""

    action: str
    options: Mapping[str, Any]
    cadence: Cadence


@dataclass(frozen=True)
class ScheduleInfo:
    """A schedule and its last run. ``collection``: its name; None, like ``tenant_id``: the installation's own.

    ``next_run_at`` includes the jitter; of one that is paused it says nothing.
    """

    id: ScheduleId
    tenant_id: TenantId | None
    collection_id: CollectionId | None
    collection: str | None
    action: str
    options: Mapping[str, Any]
    cadence: Cadence
    due_at: float
    next_run_at: float
    paused_at: float | None
    last_success_at: float | None
    created_at: float
    last_run: RunInfo | None = None


def add_schedule(
    catalog: Catalog,
    owner: Owner,
    new: NewSchedule,
    *,
    now: float,
    chance: Callable[[], float],
    most: int = MAX_SCHEDULES_PER_TENANT,
) -> ScheduleInfo:
    """Make a schedule of a collection, or of the installation. It runs for the first time at its next time.

    ``chance``: a number from 0 to 1, for the jitter.

    Raises:
        InvalidSchedule: says what is wrong, with ``param``.
        NotFound: the tenant has no such collection.
        LimitReached: the tenant has ``most`` schedules already.
    """
    assert (owner.tenant is None) == (owner.collection_id is None)
    cadence = checked_cadence(new.cadence, now=now)
    due_at = cadence.following(now, since=now)
    row = {
        "id": new_id("sched"),
        "tenant_id": owner.tenant,
        "collection_id": owner.collection_id,
        "action": new.action,
        "options": dict(new.options),
        "cron": cadence.cron,
        "every_s": cadence.every_s,
        "timezone": cadence.timezone,
        "jitter_s": cadence.jitter_s,
        "due_at": due_at,
        "next_run_at": due_at + chance() * cadence.jitter_s,
        "created_at": now,
    }
    with catalog.write("add_schedule") as connection:
        _hold_collection(connection, owner)
        counted = sa.select(sa.func.count()).select_from(schedules).where(*Owner(owner.tenant).owns())
        if connection.scalars(counted).one() >= most:
            raise LimitReached(f"there are {most:,} schedules of this owner, as many as may be: delete one")
        connection.execute(sa.insert(schedules).values(row))
    return get_schedule(catalog, owner, ScheduleId(str(row["id"])))


def get_schedule(catalog: Catalog, owner: Owner, schedule_id: str) -> ScheduleInfo:
    """Return one schedule. Raises NotFound."""
    with catalog.read() as connection:
        found = _read(connection, *owner.owns(), schedules.c.id == schedule_id)
    if not found:
        raise missing(schedule_id)
    return found[0]


def list_schedules(catalog: Catalog, owner: Owner) -> list[ScheduleInfo]:
    """Return an owner's schedules, each with its last run, in the order in which they were made."""
    with catalog.read() as connection:
        return _read(connection, *owner.owns())


def pause_schedule(catalog: Catalog, owner: Owner, schedule_id: str, *, now: float) -> ScheduleInfo:
    """Open no more runs of it; one that is under way goes on. Twice is harmless. Raises NotFound."""
    with catalog.write("pause_schedule") as connection:
        since = sa.func.coalesce(schedules.c.paused_at, now)  # the first pause is the one that is told
        mine = sa.update(schedules).where(*owner.owns(), schedules.c.id == schedule_id)
        if connection.execute(mine.values(paused_at=since)).rowcount != 1:
            raise missing(schedule_id)
    return get_schedule(catalog, owner, schedule_id)


def resume_schedule(
    catalog: Catalog, owner: Owner, schedule_id: str, *, now: float, chance: Callable[[], float]
) -> ScheduleInfo:
    """Go on at its next time: what was due during the pause is not made up for. Twice is harmless. Raises NotFound."""
    with catalog.write("resume_schedule") as connection:
        wanted = sa.select(schedules).where(*owner.owns(), schedules.c.id == schedule_id)
        row = connection.execute(wanted.with_for_update()).first()
        if row is None:
            raise missing(schedule_id)
        if row.paused_at is not None:
            cadence = cadence_of(row)
            due_at = cadence.following(now, since=row.due_at)
            values = {"due_at": due_at, "next_run_at": due_at + chance() * cadence.jitter_s, "paused_at": None}
            connection.execute(sa.update(schedules).where(schedules.c.id == schedule_id).values(values))
    return get_schedule(catalog, owner, schedule_id)


def delete_schedule(catalog: Catalog, owner: Owner, schedule_id: str) -> None:
    """Forget a schedule and its history. A run that is under way ends without an outcome. Raises NotFound."""
    with catalog.write("delete_schedule") as connection:
        mine = sa.select(schedules.c.id).where(*owner.owns(), schedules.c.id == schedule_id)
        if connection.scalar(mine.with_for_update()) is None:  # beat adds no run to it from here on
            raise missing(schedule_id)
        connection.execute(sa.delete(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id))
        connection.execute(sa.delete(schedules).where(schedules.c.id == schedule_id))


def missing(schedule_id: str) -> NotFound:
    return NotFound(f"there is no schedule {schedule_id[:64]!r} here: the list of schedules shows the ids")


def cadence_of(row: Row[Any]) -> Cadence:
    """Return when a row of the table runs."""
    return Cadence(cron=row.cron, every_s=row.every_s, timezone=row.timezone, jitter_s=row.jitter_s)


def _hold_collection(connection: Connection, owner: Owner) -> None:
    """Keep the collection from being deleted until the commit. Raises NotFound."""
    if owner.tenant is None:
        return
    mine = (collections.c.id == owner.collection_id, collections.c.tenant_id == owner.tenant)
    held = sa.select(collections.c.id).where(*mine).with_for_update(read=True, key_share=True)
    if connection.scalar(held) is None:
        raise NotFound(f"there is no collection {owner.collection_id!r}")


def _read(connection: Connection, *conditions: sa.ColumnElement[bool]) -> list[ScheduleInfo]:
    of_collection = collections.c.id == schedules.c.collection_id
    wanted = sa.select(schedules, collections.c.name.label("collection")).join(collections, of_collection, isouter=True)
    rows = connection.execute(wanted.where(*conditions).order_by(schedules.c.id)).all()
    runs = last_runs(connection, [row.id for row in rows])
    return [_info(row, runs) for row in rows]


def _info(row: Row[Any], runs: Mapping[str, RunInfo]) -> ScheduleInfo:
    own: Sequence[str] = [name for name in ScheduleInfo.__dataclass_fields__ if name not in ("cadence", "last_run")]
    values = {name: getattr(row, name) for name in own}
    return ScheduleInfo(**values, cadence=cadence_of(row), last_run=runs.get(row.id))
