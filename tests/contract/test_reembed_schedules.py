"""Schedules that embed a collection again: begun, followed to its end, and never begun twice."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.storage import schedules
from penstock.storage.catalog.collections import delete_collection
from penstock.storage.catalog.tables import schedule_runs
from penstock.storage.ids import ScheduleId
from penstock.storage.reembedding.endings import cancel
from penstock.storage.schedules import Cadence, NewSchedule, Owner, RunInfo

from ..reembedded_line import ReembeddedLine, reembedded_line
from ..role_line import ACME
from .test_reembedding import filled

WEEKLY = Cadence(cron="0 3 * * SUN")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[ReembeddedLine]:
    with reembedded_line(tmp_path / "data") as made:
        yield made


def add(line: ReembeddedLine, **options: object) -> ScheduleId:
    owner, new = Owner(ACME, line.collection.id), NewSchedule("reembed", options, WEEKLY)
    return schedules.add_schedule(line.catalog, owner, new, now=time.time(), chance=lambda: 0.0).id


def begin(line: ReembeddedLine, schedule_id: ScheduleId) -> RunInfo:
    schedules.run_now(line.catalog, Owner(ACME, line.collection.id), schedule_id, now=time.time())
    return go_on(line, schedule_id)


def go_on(line: ReembeddedLine, schedule_id: ScheduleId) -> RunInfo:
    """Let maintenance look at the run, as if the time between two looks had passed."""
    catalog = line.catalog
    with catalog.write() as connection:
        connection.execute(sa.update(schedule_runs).values(next_attempt_at=0.0))
    line.maintenance.run()
    return schedules.list_runs(catalog, schedule_id)[0]


def test_a_run_begins_a_reembedding_and_ends_with_it(line):
    before = filled(line)
    weekly = add(line, model="hash-384")
    run = begin(line, weekly)
    assert (run.state, run.attempts) == ("waiting", 0)
    line.until("switched")
    run = go_on(line, weekly)
    assert (run.state, run.reason) == ("ok", None)
    assert run.progress["chunks_copied"] == run.progress["chunks_total"] > 0
    assert line.current().generation.model == "hash-384"
    assert line.served() == before
    run = begin(line, weekly)
    assert (run.state, "already" in run.reason or "still kept" in run.reason) == ("skipped", True)


@pytest.mark.parametrize("until", ["copying", "switched"])
def test_a_run_whose_worker_died_after_it_began_goes_on_with_the_same_reembedding(line, monkeypatch, until):
    filled(line)
    weekly = add(line, model="hash-384")

    def die(where: str) -> None:
        if where == "begin_reembedding.after_commit":
            raise SystemExit("killed")

    with monkeypatch.context() as patched:
        patched.setattr("penstock.storage.catalog.engine.hit", die)
        with pytest.raises(SystemExit):
            begin(line, weekly)
    begun = line.until(until)
    assert schedules.take_back_runs(line.catalog, now=time.time() + 10_000) == 1
    run = go_on(line, weekly)
    assert (run.state, run.progress["reembedding"]) == ("ok" if until == "switched" else "waiting", begun.id)
    line.until("switched")
    if until == "copying":
        assert go_on(line, weekly).state == "ok"


def test_a_collection_of_fewer_dimensions_has_its_model_already_and_keeps_them(tmp_path):
    declared = {
        "model": "openai/declared",
        "openai_base_url": "http://127.0.0.1:1/v1",
        "openai_dimensions": 512,
        "openai_shortest_dimensions": 256,
    }
    with reembedded_line(tmp_path / "data", embedding=declared) as line:
        run = begin(line, add(line))
    assert (run.state, "256 dimensions" in run.reason) == ("skipped", True)


def test_a_reembedding_that_ends_otherwise_fails_the_run_with_the_reason(line):
    filled(line)
    weekly = add(line, model="hash-384")
    begin(line, weekly)
    cancel(line.catalog, line.current(), now=time.time())
    line.until("cancelled")
    run = go_on(line, weekly)
    assert (run.state, "cancelled" in run.reason) == ("failed", True)


@pytest.mark.parametrize(("model", "told"), [("hash-256", "already"), ("nonsense", "nonsense")])
def test_a_model_that_is_there_already_or_unknown_begins_nothing(line, model, told):
    filled(line, 1)
    run = begin(line, add(line, model=model))
    assert run.state == ("skipped" if model == "hash-256" else "failed")
    assert told in run.reason


def test_a_build_without_a_switch_ends_well_when_it_is_ready(line):
    filled(line)
    weekly = add(line, model="hash-384", no_switch=True)
    begin(line, weekly)
    line.until("ready")
    assert go_on(line, weekly).state == "ok"
    assert line.current().generation.model != "hash-384"


def test_a_run_cuts_and_stores_otherwise_where_the_schedule_says_so(line):
    filled(line, 2)
    run = begin(line, add(line, model="hash-512", economy=True))
    assert (run.state, "not to be had for less" in str(run.reason)) == ("failed", True)
    chunking = {"strategy": "recursive", "size_tokens": 8, "overlap_tokens": 0}
    begin(line, add(line, model="hash-384", chunking=chunking, quantization="int8", keep_s=60.0))
    begun = line.info()
    assert (begun.target.quantization, begun.target.chunking["size_tokens"], begun.keep_s) == ("int8", 8, 60.0)
    assert begun.recuts


def test_the_run_goes_with_its_collection(line):
    filled(line, 1)
    weekly = add(line, model="hash-384")
    begin(line, weekly)
    delete_collection(line.catalog, tenant=ACME, name="docs")
    line.maintenance.run()
    assert schedules.list_runs(line.catalog, weekly) == []
