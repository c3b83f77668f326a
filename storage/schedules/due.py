"""Opens a run when it is time, and takes back those whose worker died. For beats: any number of them at once.

A schedule is moved on in the transaction that opens its run: a beat that dies before the commit leaves it due, one that
dies after it has opened the run, and a second beat finds it moved on, or its row held. Times that passed while no beat
ran are one run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.engine import Catalog
from ..catalog.statements import insert_if_absent
from ..catalog.tables import IS_OPEN_RUN, schedule_runs, schedules
from ..catalog.values import slices
from ..errors import Conflict, InvalidSchedule
from ..ids import RunId, new_id
from ..ledger.pauses import goes_on
from .definitions import Owner, cadence_of, missing
from .history import RunInfo, run_info

AT_ONCE = 200  # schedules in one transaction; the next tick finds the others
MAX_ATTEMPTS = 3  # of one run, whose worker died each time
STILL_GOING = "the run before was still going"


@dataclass(frozen=True)
class Opened:
    """What a tick did: ``skipped`` are those whose run before was still going."""

    opened: int = 0
    skipped: int = 0


def open_due_runs(catalog: Catalog, *, now: float, chance: Callable[[], float]) -> Opened:
    """Open a run of each schedule that is due, and move it on to its next time. Those of paused tenants stay due."""
    due = (schedules.c.paused_at.is_(None), schedules.c.next_run_at <= now, _tenant_goes_on(schedules))
    with catalog.read() as connection:  # the common case, without the write lock
        if connection.scalar(sa.select(schedules.c.id).where(*due).limit(1)) is None:
            return Opened()
    with catalog.write("open_due_runs") as connection:
        wanted = sa.select(schedules).where(*due).order_by(schedules.c.id).limit(AT_ONCE)
        rows = connection.execute(wanted.with_for_update(skip_locked=True)).all()
        if not rows:
            return Opened()
        _move_on(connection, rows, now=now, chance=chance)
        busy = {row.id for row in rows} & _with_open_run(connection, [row.id for row in rows])
        made = [_run(row, now=now, due_at=row.due_at, asked=False) for row in rows]
        over = {"state": "skipped", "reason": STILL_GOING, "finished_at": now}
        made = [{**run, **over} if run["schedule_id"] in busy else run for run in made]
        connection.execute(sa.insert(schedule_runs), made)
    return Opened(len(rows) - len(busy), len(busy))


def run_now(catalog: Catalog, owner: Owner, schedule_id: str, *, now: float) -> RunInfo:
    """Open a run beside the times of a schedule, a paused one too. Raises NotFound, or Conflict: one is going."""
    with catalog.write("run_now") as connection:
        mine = sa.select(schedules).where(*owner.owns(), schedules.c.id == schedule_id)
        row = connection.execute(mine.with_for_update()).first()
        if row is None:
            raise missing(schedule_id)
        run = _run(row, now=now, due_at=now, asked=True)
        if not insert_if_absent(connection, schedule_runs, run):
            raise Conflict(f"a run of schedule {schedule_id} is still going: the history shows how far it is")
        return run_info(connection.execute(sa.select(schedule_runs).where(schedule_runs.c.id == run["id"])).one())


def take_back_runs(catalog: Catalog, *, now: float, max_attempts: int = MAX_ATTEMPTS) -> int:
    """Let runs whose lease ended be taken again, or end them as lost; returns how many there were."""
    lapsed = (schedule_runs.c.state == "running", schedule_runs.c.lease_until < now)
    with catalog.read() as connection:
        if connection.scalar(sa.select(schedule_runs.c.id).where(*lapsed).limit(1)) is None:
            return 0
    free = {"owner": None, "lease_until": None}
    lost = {"state": "lost", "finished_at": now, "reason": f"its worker died, {max_attempts} times"}
    with catalog.write("take_back_runs") as connection:
        again = sa.update(schedule_runs).where(*lapsed, schedule_runs.c.attempts < max_attempts)
        taken = connection.execute(again.values(state="waiting", next_attempt_at=now, **free)).rowcount
        return taken + connection.execute(sa.update(schedule_runs).where(*lapsed).values(**free, **lost)).rowcount


def count_due(catalog: Catalog, *, now: float, most: int) -> int:
    """Return how many runs a worker may take now, where ``most`` may be going; those of paused tenants may not."""
    wanted = sa.select(sa.func.count()).select_from(schedule_runs).where(*may_begin(now))
    with catalog.read() as connection:
        due = connection.scalars(wanted).one()
        return max(0, min(due, most - count_going(connection, now=now))) if due else 0


def count_going(connection: Connection, *, now: float) -> int:
    """Return how many runs workers hold."""
    going = (schedule_runs.c.state == "running", schedule_runs.c.lease_until >= now)
    return connection.scalars(sa.select(sa.func.count()).select_from(schedule_runs).where(*going)).one()


def may_begin(now: float) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions for runs that a worker may take."""
    waits = (schedule_runs.c.state == "waiting", schedule_runs.c.next_attempt_at <= now)
    return (*waits, _tenant_goes_on(schedule_runs))


def _tenant_goes_on(table: sa.Table) -> sa.ColumnElement[bool]:
    return goes_on(sa.func.coalesce(table.c.tenant_id, ""))


def _move_on(connection: Connection, rows: Sequence[Row[Any]], *, now: float, chance: Callable[[], float]) -> None:
    moved = []
    for row in rows:
        cadence = cadence_of(row)
        try:
            due_at = cadence.following(now, since=row.due_at)
        except InvalidSchedule:  # no further time, or a zone that this machine does not know: this is its last run
            moved.append({"of": row.id, "due": row.due_at, "next": row.next_run_at, "paused": now})
            continue
        moved.append({"of": row.id, "due": due_at, "next": due_at + chance() * cadence.jitter_s, "paused": None})
    names: dict[str, Any] = {
        "due_at": sa.bindparam("due"),
        "next_run_at": sa.bindparam("next"),
        "paused_at": sa.bindparam("paused"),
    }
    connection.execute(sa.update(schedules).where(schedules.c.id == sa.bindparam("of")).values(names), moved)


def _with_open_run(connection: Connection, schedule_ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for some in slices(schedule_ids):
        busy = sa.select(schedule_runs.c.schedule_id).where(IS_OPEN_RUN, schedule_runs.c.schedule_id.in_(some))
        found.update(connection.scalars(busy))
    return found


def _run(row: Row[Any], *, now: float, due_at: float, asked: bool) -> dict[str, Any]:
    return {
        "id": RunId(new_id("run")),
        "schedule_id": row.id,
        "tenant_id": row.tenant_id,
        "state": "waiting",
        "asked": asked,
        "due_at": due_at,
        "next_attempt_at": now,
        "progress": {},
        "reason": None,
        "created_at": now,
        "finished_at": None,
    }
