"""The beat's part in schedules: it sends for as many workers as there is work for, and outlives every outage."""

import logging

import pytest
from celery import Celery

from penstock.storage import schedules
from penstock.storage.errors import Unavailable
from penstock.storage.schedules import Cadence, NewSchedule, Owner
from penstock.workers.beat import Ticks
from penstock.workers.timekeeping import EVERY_S, OUTAGE_PAUSE_S, Timekeeper

from ..storage_samples import new_catalog


class Queue:
    """Messages that nobody reads."""

    def __init__(self) -> None:
        self.messages = 0
        self.broken = False

    def waiting(self) -> int:
        if self.broken:
            raise ConnectionError("the broker is away")
        return self.messages

    def send(self, count: int) -> None:
        self.messages += count


@pytest.fixture
def catalog(tmp_path):
    opened = new_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite3'}")
    for _ in range(5):
        new = NewSchedule("expire", {}, Cadence(every_s=3_600.0))
        schedules.add_schedule(opened, Owner(), new, now=0.0, chance=lambda: 0.0)
    yield opened
    opened.dispose()


def keeper(catalog, queue: Queue, *, now: float = 4_000.0, most: int = 2) -> Timekeeper:
    return Timekeeper(catalog, queue, most=most, clock=lambda: now, chance=lambda: 0.0)


def test_as_many_workers_are_sent_for_as_may_run_and_messages_do_not_pile_up(catalog):
    queue = Queue()
    for _ in range(3):
        keeper(catalog, queue).turn()
    assert queue.messages == 2
    queue.messages = 0  # as after a FLUSHALL
    keeper(catalog, queue, most=100).turn()
    assert queue.messages == 5
    assert schedules.count_due(catalog, now=4_000.0, most=9) == 5


def test_before_anything_is_due_nobody_is_sent_for(catalog):
    queue = Queue()
    keeper(catalog, queue, now=3_599.0).turn()
    assert queue.messages == 0


def test_an_outage_is_told_once_and_what_was_due_is_opened_all_the_same(catalog, caplog):
    caplog.set_level(logging.INFO)
    queue = Queue()
    queue.broken = True
    kept = keeper(catalog, queue)
    assert kept.tick() == OUTAGE_PAUSE_S
    assert schedules.count_due(catalog, now=4_000.0, most=9) == 5
    kept._next_at = 0.0
    kept.tick()
    queue.broken = False
    kept._next_at = 0.0
    assert kept.tick() == EVERY_S
    told = [text for text in caplog.messages if text.startswith("Schedules")]
    assert [text.split(";")[0] for text in told] == ["Schedules wait", "Schedules go on."]
    assert queue.messages == 2


def test_a_catalog_that_is_away_does_not_end_the_beat(monkeypatch, catalog):
    def away(*_args, **_options) -> None:
        raise Unavailable("the catalog did not answer")

    monkeypatch.setattr("penstock.storage.schedules.open_due_runs", away)
    assert keeper(catalog, Queue()).tick() == OUTAGE_PAUSE_S


def test_celerys_scheduler_looks_at_the_catalog_at_each_of_its_ticks(catalog):
    queue = Queue()
    ticks = Ticks(Celery(broker="memory://"), lazy=True, timekeeper=keeper(catalog, queue))
    assert 0 < ticks.tick() <= EVERY_S
    assert queue.messages == 2
    assert 0 < ticks.tick() <= EVERY_S  # too soon: nothing was looked at
