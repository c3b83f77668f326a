"""How runs ended: ok, failed, skipped or lost, with the reason. Old ones are forgotten, the last of each is not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.tables import IS_OPEN_RUN, schedule_runs, schedules
from ..catalog.values import slices
from ..ids import RunId, ScheduleId, TenantId

KEEP_S = 30 * 86_400.0
KEPT_MOST = 1_000  # of one schedule: one that runs every minute would have 43,200 in a month
_AT_ONCE = 500  # rows in one transaction, in which nobody else writes on SQLite


@dataclass(frozen=True)
class RunInfo:
    """One run. ``state``: waiting, running, or how it ended: ok, failed, skipped, lost. ``reason``: of the last three.

    ``due_at``: the time that it was for; ``asked``: a person asked for it beside its times. ``progress``: what it did.
    """

    id: RunId
    schedule_id: ScheduleId
    state: str
    asked: bool
    due_at: float
    attempts: int
    progress: Mapping[str, Any]
    reason: str | None
    created_at: float
    started_at: float | None
    finished_at: float | None


def list_runs(
    catalog: Catalog, schedule_id: ScheduleId, *, limit: int = 100, after: str | None = None
) -> list[RunInfo]:
    """Return the runs of a schedule, newest first; the next page begins ``after`` the last one."""
    wanted = sa.select(schedule_runs).where(schedule_runs.c.schedule_id == schedule_id)
    if after is not None:
        wanted = wanted.where(schedule_runs.c.id < after)
    with catalog.read() as connection:
        return [run_info(row) for row in connection.execute(wanted.order_by(schedule_runs.c.id.desc()).limit(limit))]


def last_runs(connection: Connection, schedule_ids: Sequence[str]) -> dict[str, RunInfo]:
    """Return for each of these schedules the run that is going, else the newest, if it had any."""
    found: dict[str, RunInfo] = {}
    others = schedule_runs.alias("others")
    newest = sa.select(sa.func.max(others.c.id)).where(others.c.schedule_id == schedules.c.id).scalar_subquery()
    for some in slices(schedule_ids):
        ids = sa.select(newest).select_from(schedules).where(schedules.c.id.in_(some))
        last = sa.select(schedule_runs).where(schedule_runs.c.id.in_(ids))
        going = sa.select(schedule_runs).where(IS_OPEN_RUN, schedule_runs.c.schedule_id.in_(some))
        for wanted in (last, going):
            found |= {row.schedule_id: run_info(row) for row in connection.execute(wanted)}
    return found


def forget_runs(catalog: Catalog, *, now: float, keep_s: float = KEEP_S, most: int = KEPT_MOST) -> int:
    """Delete runs that ended longer than ``keep_s`` ago, and all but the newest ``most``; returns how many.

    The last one of each schedule stays. Some hundreds at once: the next call goes on.
    """
    newer = schedule_runs.alias("newer")
    followed = sa.exists().where(newer.c.schedule_id == schedule_runs.c.schedule_id, newer.c.id > schedule_runs.c.id)
    old = sa.select(schedule_runs.c.id).where(schedule_runs.c.finished_at < now - keep_s, followed)
    with catalog.read() as connection:
        found = list(connection.scalars(old.order_by(schedule_runs.c.finished_at).limit(_AT_ONCE)))
        found += _beyond(connection, most)
    for some in slices(sorted({*found})):
        with catalog.write("forget_runs") as connection:
            connection.execute(sa.delete(schedule_runs).where(schedule_runs.c.id.in_(some)))
    return len({*found})


def oldest_successes(catalog: Catalog, *, limit: int) -> list[tuple[ScheduleId, TenantId | None, str, float]]:
    """Return (id, tenant, action, when it last ended well, or was made) of schedules, those longest ago first.

    Paused ones are left out: nobody expects anything of them.
    """
    at = sa.func.coalesce(schedules.c.last_success_at, schedules.c.created_at)
    wanted = sa.select(schedules.c.id, schedules.c.tenant_id, schedules.c.action, at)
    with catalog.read() as connection:
        rows = connection.execute(wanted.where(schedules.c.paused_at.is_(None)).order_by(at, schedules.c.id))
        return [(row[0], row[1], row[2], row[3]) for row in rows.fetchmany(limit)]


def run_info(row: Row[Any]) -> RunInfo:
    """Return a row of the table."""
    return RunInfo(**{name: getattr(row, name) for name in RunInfo.__dataclass_fields__})


def _beyond(connection: Connection, most: int) -> list[str]:
    """Return runs, over by now, of schedules that have more than ``most``: the oldest ones."""
    counted = sa.select(schedule_runs.c.schedule_id).group_by(schedule_runs.c.schedule_id)
    crowded = connection.scalars(counted.having(sa.func.count() > most)).all()
    found: list[str] = []
    for schedule_id in crowded:
        mine = sa.select(schedule_runs.c.id).where(schedule_runs.c.schedule_id == schedule_id)
        beyond = mine.where(schedule_runs.c.finished_at.is_not(None)).order_by(schedule_runs.c.id.desc())
        found += connection.scalars(beyond.offset(most).limit(_AT_ONCE)).all()
    return found
