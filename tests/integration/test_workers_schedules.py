"""Schedules with real processes: two beats at once, and a worker that is killed in the middle of a run."""

import time

import pytest
import sqlalchemy as sa

from penstock.storage import schedules
from penstock.storage.catalog.tables import schedules as table
from penstock.storage.ids import ScheduleId
from penstock.storage.schedules import Cadence, NewSchedule, Owner

from ..role_processes import Plant

HOURLY = Cadence(every_s=3_600.0)


@pytest.fixture
def plant(tmp_path):
    (tmp_path / "srv" / "notes").mkdir(parents=True)
    allowed = {"schedules.sync_roots": str(tmp_path / "srv"), "schedules.backup_roots": str(tmp_path / "safe")}
    made = Plant(tmp_path, **allowed, **{"schedules.runs": 2})
    yield made
    made.close()


def add(plant: Plant, owner: Owner, action: str, **options: str) -> str:
    new = NewSchedule(action, options, HOURLY)
    return schedules.add_schedule(plant.catalog, owner, new, now=time.time(), chance=lambda: 0.0).id


def make_due(plant: Plant) -> None:
    """Let all schedules have been due for a week, at the same moment."""
    with plant.catalog.write() as connection:
        connection.execute(sa.update(table).values(due_at=time.time() - 7 * 86_400, next_run_at=0.0))


def outcomes(plant: Plant, ids: list[str]) -> list[list[str]]:
    return [[run.state for run in schedules.list_runs(plant.catalog, ScheduleId(one))] for one in ids]


def test_two_beats_make_up_for_a_missed_week_once_and_a_worker_that_is_killed_again_and_again_is_followed(plant):
    collection, folder = plant.collection("acme"), plant.folder / "srv" / "notes"
    for number in range(250):  # two submissions, after each of which the process is killed
        (folder / f"{number}.txt").write_text(f"{number} says that the water turns the wheel.")
    owner = Owner(collection.tenant_id, collection.id)
    followed = add(plant, owner, "sync", folder=str(folder))
    others = [add(plant, owner, "expire"), add(plant, owner, "merge"), add(plant, Owner(), "expire")]
    others += [add(plant, Owner(), "backup", destination=str(plant.folder / "safe" / "all"))]
    make_due(plant)
    plant.start("beat")
    plant.processes["second beat"] = plant.processes.pop("beat")
    plant.start("beat", "chunk", "embed", "index")
    plant.start("maintenance", PENSTOCK_FAILPOINT="accept.after_commit:1")
    plant.until(lambda: outcomes(plant, [followed, *others]) == [["ok"]] * 5, "all runs to end well")
    (run,) = schedules.list_runs(plant.catalog, ScheduleId(followed))
    assert (run.attempts, run.progress["unchanged"], run.progress["deleted"]) == (3, 250, 0)
    plant.until(lambda: len(plant.searchable(collection)) == 250, "the folder to be searchable")
    plant.stop("beat", "second beat")
    assert [len(states) for states in outcomes(plant, [followed, *others])] == [1] * 5  # no beat opened another
