"""Schedules in the catalog: each time is one run, whatever beats and workers do, and every run has an outcome."""

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from penstock.storage import ledger, schedules
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import schedule_runs
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import Conflict, LimitReached, NotFound
from penstock.storage.ids import CollectionId
from penstock.storage.schedules import Cadence, NewSchedule, Opened, Owner, claims
from penstock.storage.schedules.due import STILL_GOING

from ..ledger_line import TENANT, Line, new_line

HOUR = 3_600.0
DAILY = NewSchedule("expire", {}, Cadence(every_s=HOUR))
EVERYTHING = Owner()


@pytest.fixture
def line(catalog) -> Line:
    return new_line(catalog)


@pytest.fixture
def owner(line) -> Owner:
    return Owner(TENANT, line.collection.id)


def add(line: Line, owner: Owner, new: NewSchedule = DAILY, **options: Any) -> schedules.ScheduleInfo:
    return schedules.add_schedule(line.catalog, owner, new, now=line.now, chance=lambda: 0.0, **options)


def tick(line: Line) -> Opened:
    return schedules.open_due_runs(line.catalog, now=line.now, chance=lambda: 0.0)


def claim(line: Line, *, owner: str = "worker", most: int = 10) -> schedules.Run | None:
    return schedules.claim_run(line.catalog, owner=owner, lease_s=30.0, now=line.now, most=most)


def states(line: Line, schedule: schedules.ScheduleInfo) -> list[str]:
    return [run.state for run in schedules.list_runs(line.catalog, schedule.id)]


def begun(line: Line, owner: Owner) -> tuple[schedules.ScheduleInfo, schedules.Run]:
    made = add(line, owner)
    line.now += HOUR
    tick(line)
    run = claim(line)
    assert run is not None
    return made, run


def test_each_time_is_one_run_and_two_beats_do_no_harm(catalog_url, line, owner):
    made = add(line, owner)
    assert tick(line) == Opened()
    line.now += HOUR
    beats = [Catalog.open(catalog_url) for _ in range(4)]
    ready, counts = threading.Barrier(len(beats)), []

    def beat(catalog: Catalog) -> None:
        ready.wait()
        counts.append(schedules.open_due_runs(catalog, now=line.now, chance=lambda: 0.0).opened)

    threads = [threading.Thread(target=beat, args=[catalog]) for catalog in beats]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for catalog in beats:
        catalog.dispose()
    assert sorted(counts) == [0, 0, 0, 1]
    assert states(line, made) == ["waiting"]


def test_times_that_passed_while_no_beat_ran_are_one_run(line, owner):
    made = add(line, owner)
    line.now += 100.5 * HOUR
    assert tick(line) == Opened(opened=1)
    (run,) = schedules.list_runs(line.catalog, made.id)
    assert run.due_at == made.next_run_at
    after = schedules.get_schedule(line.catalog, owner, made.id)
    assert after.next_run_at == made.created_at + 101 * HOUR


def test_a_beat_that_dies_before_the_commit_leaves_the_schedule_due(line, owner, monkeypatch):
    made = add(line, owner)
    line.now += HOUR

    def die(where: str) -> None:
        if where == "open_due_runs.before_commit":
            raise RuntimeError("the power went out")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.storage.catalog.engine.hit", die)
        with pytest.raises(RuntimeError):
            tick(line)
    assert states(line, made) == []
    assert tick(line) == Opened(opened=1)


def test_a_run_that_is_still_going_makes_the_next_time_skipped_with_the_reason(line, owner):
    made, first = begun(line, owner)
    line.now += HOUR
    assert tick(line) == Opened(skipped=1)
    skipped, going = schedules.list_runs(line.catalog, made.id)
    assert (skipped.state, skipped.reason, going.state) == ("skipped", STILL_GOING, "running")
    assert claim(line) is None
    assert (
        schedules.list_schedules(line.catalog, owner)[0].last_run == going
    )  # which is worth more than the skipped one
    with pytest.raises(Conflict, match="still going"):
        schedules.run_now(line.catalog, owner, made.id, now=line.now)
    schedules.end_run(line.catalog, first, state="ok", now=line.now, progress={"documents": 3})
    line.now += HOUR
    assert tick(line) == Opened(opened=1)


def test_a_run_ends_with_its_outcome_and_the_schedule_knows_its_last_success(line, owner):
    made, run = begun(line, owner)
    schedules.end_run(line.catalog, run, state="failed", now=line.now, progress={}, reason="the folder is away")
    found = schedules.get_schedule(line.catalog, owner, made.id)
    assert (found.last_run.state, found.last_run.reason) == ("failed", "the folder is away")
    assert found.last_success_at is None
    asked = schedules.run_now(line.catalog, owner, made.id, now=line.now)
    assert asked.asked
    again = claim(line)
    assert again.id == asked.id
    schedules.end_run(line.catalog, again, state="ok", now=line.now + 5.0, progress={"added": 2})
    found = schedules.get_schedule(line.catalog, owner, made.id)
    assert found.last_success_at == line.now + 5.0
    assert (found.last_run.progress, found.last_run.started_at) == ({"added": 2}, line.now)
    with pytest.raises(Conflict, match="no longer held"):
        schedules.end_run(line.catalog, again, state="failed", now=line.now, progress={}, reason="late")


def test_a_worker_that_dies_is_followed_by_another_and_the_third_death_is_an_outcome(line, owner):
    made, first = begun(line, owner)
    schedules.record_progress(line.catalog, first, {"job_id": "job_1"})
    line.now += 29.0
    assert schedules.take_back_runs(line.catalog, now=line.now) == 0
    assert schedules.renew_run(line.catalog, first, lease_s=30.0, now=line.now)
    line.now += 31.0
    assert schedules.take_back_runs(line.catalog, now=line.now) == 1
    second = claim(line, owner="another")
    assert (second.id, second.attempt, second.progress) == (first.id, 2, {"job_id": "job_1"})
    assert not schedules.renew_run(line.catalog, first, lease_s=30.0, now=line.now)
    with pytest.raises(Conflict):  # it woke up late: nobody listens
        schedules.end_run(line.catalog, first, state="ok", now=line.now, progress={})
    for _ in range(2):
        line.now += 31.0
        schedules.take_back_runs(line.catalog, now=line.now)
        claim(line, owner="another")
    (run,) = schedules.list_runs(line.catalog, made.id)
    assert (run.state, run.reason) == ("lost", "its worker died, 3 times")
    assert schedules.get_schedule(line.catalog, owner, made.id).last_success_at is None


def test_what_is_handed_back_or_has_to_wait_costs_no_attempt(line, owner):
    _, run = begun(line, owner)
    schedules.hand_back_run(line.catalog, run, now=line.now)
    run = claim(line)
    assert run.attempt == 1
    schedules.postpone_run(line.catalog, run, at=line.now + 60.0, progress={"waits": "for a merge"})
    assert claim(line) is None
    line.now += 60.0
    assert schedules.count_due(line.catalog, now=line.now, most=9) == 1
    run = claim(line)
    assert (run.attempt, run.progress) == (1, {"waits": "for a merge"})


def test_only_so_many_run_at_once_and_the_next_is_of_whoever_waited_longest(line, owner):
    other_line = new_line(line.catalog, tenant=create_tenant(line.catalog, "other", now=1.0))
    for _ in range(3):
        add(line, owner)
    add(line, Owner(other_line.tenant, other_line.collection.id))
    line.now += HOUR
    assert tick(line) == Opened(opened=4)
    first = claim(line, most=1)
    assert claim(line, most=1) is None
    schedules.end_run(line.catalog, first, state="ok", now=line.now, progress={})
    line.now += 1.0
    assert {first.tenant, claim(line, most=1).tenant} == {TENANT, other_line.tenant}


def test_two_processes_that_ask_at_once_take_no_more_runs_than_may_go(line, owner, monkeypatch):
    for _ in range(2):
        add(line, owner)
    line.now += HOUR
    assert tick(line) == Opened(opened=2)
    taken: list[schedules.Run | None] = []
    other = threading.Thread(target=lambda: taken.append(claim(line, owner="the other", most=1)))
    count_going = claims.count_going

    def count(*args: Any, **options: Any) -> int:
        going = count_going(*args, **options)
        if other.ident is None:
            other.start()
            other.join(0.2)  # it may have to wait for the one that counts here, who must not wait for it then
        return going

    monkeypatch.setattr(claims, "count_going", count)
    taken.append(claim(line, most=1))
    other.join()
    assert len([run for run in taken if run is not None]) == 1


def test_a_paused_schedule_opens_nothing_and_does_not_make_up_for_its_pause(line, owner):
    made = add(line, owner)
    paused = schedules.pause_schedule(line.catalog, owner, made.id, now=line.now)
    line.now += 50.0
    assert schedules.pause_schedule(line.catalog, owner, made.id, now=line.now).paused_at == paused.paused_at
    line.now += 3 * HOUR
    assert tick(line) == Opened()
    assert schedules.run_now(line.catalog, owner, made.id, now=line.now).asked
    resumed = schedules.resume_schedule(line.catalog, owner, made.id, now=line.now, chance=lambda: 0.0)
    assert (resumed.paused_at, tick(line)) == (None, Opened())
    assert line.now < resumed.next_run_at <= line.now + HOUR


def test_while_its_tenant_is_paused_a_schedule_stays_due_and_runs_once_after_it(line, owner):
    add(line, owner)
    ledger.pause(line.catalog, tenant=TENANT, now=line.now)
    line.now += 10 * HOUR
    assert tick(line) == Opened()
    ledger.resume(line.catalog, tenant=TENANT)
    assert tick(line) == Opened(opened=1)
    ledger.pause(line.catalog, now=line.now)
    assert (claim(line), schedules.count_due(line.catalog, now=line.now, most=9)) == (None, 0)


def test_the_jitter_delays_one_time_and_not_those_after_it(line, owner):
    new = NewSchedule("expire", {}, Cadence(every_s=HOUR, jitter_s=600.0))
    made = schedules.add_schedule(line.catalog, owner, new, now=line.now, chance=lambda: 0.5)
    assert made.next_run_at == line.now + HOUR + 300.0
    line.now += HOUR + 300.0
    assert schedules.open_due_runs(line.catalog, now=line.now, chance=lambda: 0.0) == Opened(opened=1)
    assert schedules.get_schedule(line.catalog, owner, made.id).next_run_at == made.created_at + 2 * HOUR


def test_nobody_finds_the_schedules_of_others(line, owner):
    mine, whole = add(line, owner), add(line, EVERYTHING)
    stranger = Owner(create_tenant(line.catalog, "stranger", now=1.0))
    for foreign, asked in ((mine, stranger), (whole, stranger), (whole, Owner(TENANT)), (mine, EVERYTHING)):
        for ask in (schedules.get_schedule, schedules.delete_schedule):
            with pytest.raises(NotFound, match="no schedule"):
                ask(line.catalog, asked, foreign.id)
        with pytest.raises(NotFound):
            schedules.pause_schedule(line.catalog, asked, foreign.id, now=line.now)
        with pytest.raises(NotFound):
            schedules.resume_schedule(line.catalog, asked, foreign.id, now=line.now, chance=lambda: 0.0)
        with pytest.raises(NotFound):
            schedules.run_now(line.catalog, asked, foreign.id, now=line.now)
    assert schedules.list_schedules(line.catalog, stranger) == []
    with pytest.raises(NotFound):  # another tenant's collection is none of its own
        add(line, Owner(stranger.tenant, line.collection.id))
    with pytest.raises(NotFound):
        add(line, Owner(TENANT, CollectionId("col_none")))


def test_schedules_go_with_their_collection_and_those_of_the_installation_stay(line, owner):
    _, run = begun(line, owner)
    whole = add(line, EVERYTHING)
    delete_collection(line.catalog, tenant=TENANT, name=line.collection.name)
    with pytest.raises(Conflict):
        schedules.end_run(line.catalog, run, state="ok", now=line.now, progress={})
    assert schedules.list_schedules(line.catalog, Owner(TENANT)) == []
    assert [one.id for one in schedules.list_schedules(line.catalog, EVERYTHING)] == [whole.id]


def test_a_tenant_has_so_many_schedules_and_no_more(line, owner):
    add(line, owner, most=1)
    with pytest.raises(LimitReached, match="delete one"):
        add(line, owner, most=1)
    add(line, EVERYTHING, most=1)


def test_old_runs_are_forgotten_and_the_last_one_is_not(line, owner):
    made = add(line, owner)
    for _ in range(5):
        line.now += HOUR
        tick(line)
        run = claim(line)
        schedules.end_run(line.catalog, run, state="ok", now=line.now, progress={})
    kept = schedules.list_runs(line.catalog, made.id)
    assert schedules.forget_runs(line.catalog, now=line.now, keep_s=2.5 * HOUR) == 2
    assert schedules.list_runs(line.catalog, made.id) == kept[:3]
    assert schedules.forget_runs(line.catalog, now=line.now, most=2) == 1
    assert schedules.forget_runs(line.catalog, now=line.now + 1e9) == 1
    assert schedules.list_runs(line.catalog, made.id) == kept[:1]
    assert schedules.list_runs(line.catalog, made.id, after=kept[0].id) == []
    assert schedules.oldest_successes(line.catalog, limit=5) == [(made.id, TENANT, "expire", kept[0].finished_at)]


def test_the_catalog_itself_refuses_a_second_open_run(line, owner):
    made, run = begun(line, owner)
    with line.catalog.read() as connection:
        row = dict(connection.execute(sa.select(schedule_runs)).mappings().one())
    with pytest.raises(sa.exc.IntegrityError), line.catalog.write() as connection:
        connection.execute(sa.insert(schedule_runs).values({**row, "id": "run_other", "state": "waiting"}))
    assert (states(line, made), schedules.is_held(line.catalog, run)) == (["running"], True)
