"""The beat role: Celery Beat's ticks and schedules in the main thread, dispatcher and webhooks in others.

It keeps no state.
"""

import logging
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

import redis
from celery import Celery
from celery.beat import ScheduleEntry, Scheduler, Service
from celery.schedules import schedule

from penstock.settings import logs, wiring
from penstock.settings.model import Settings
from penstock.storage.presence import Presence

from . import routes
from .app import make_app
from .components import new_owner
from .dispatcher import Dispatcher, Message
from .heartbeat import Heartbeat
from .liveness import Liveness
from .timekeeping import Timekeeper
from .webhooks import WebhookSender

log = logging.getLogger(__name__)
FIRST_TICK_S = 20.0  # after the start


class CelerySender:
    """The queue behind the dispatcher: pipelined publishing, no retries of its own."""

    def __init__(self, app: Celery) -> None:
        self._app = app

    def send(self, messages: Sequence[Message]) -> None:
        with self._app.producer_pool.acquire(block=True) as producer, producer.batch(max_size=200):
            for message in messages:
                self._app.send_task(
                    message.task,
                    args=[message.argument],
                    queue=message.queue,
                    producer=producer,
                    retry=False,
                    expires=message.expires_s,
                )

    def waiting(self, queue: str) -> int:
        with self._app.producer_pool.acquire(block=True) as producer:
            bound: Any = self._app.amqp.queues[queue](producer.channel)
            return int(bound.queue_declare().message_count)


class RunsQueue:
    """The queue of runs of schedules: `Summons` of ``timekeeping.py``."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._sender = CelerySender(app)

    def waiting(self) -> int:
        return self._sender.waiting(routes.RUNS_QUEUE)

    def send(self, count: int) -> None:
        for _ in range(count):
            self._app.send_task(routes.RUN, queue=routes.RUNS_QUEUE, retry=False)


class Ticks(Scheduler):  # type: ignore[misc]  # Celery publishes no types
    """Celery's scheduler: its own entries in memory, and the schedules of the catalog.

    It sends a tick only when none waits: nobody may be reading them, and Redis keeps what expired until somebody does.
    """

    def __init__(self, *args: Any, timekeeper: Timekeeper | None = None, **options: Any) -> None:
        self._timekeeper = timekeeper
        super().__init__(*args, **options)

    def tick(self, *args: Any, **options: Any) -> float:
        left_s = float(self.max_interval) if self._timekeeper is None else self._timekeeper.tick()
        return min(float(super().tick(*args, **options)), left_s)

    def setup_schedule(self) -> None:
        """Begin soon: what was left undone must not wait longer each time that a machine is started again."""
        super().setup_schedule()
        for entry in self.schedule.values():
            if isinstance(entry.schedule, schedule):
                entry.last_run_at = entry.default_now() - entry.schedule.run_every + timedelta(seconds=FIRST_TICK_S)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        if not self._waits(entry):
            super().apply_entry(entry, producer)

    def _waits(self, entry: ScheduleEntry) -> bool:
        try:
            return CelerySender(self.app).waiting(routes.TASK_QUEUES[entry.task]) > 0
        except Exception:  # noqa: BLE001 sending it will say what is wrong, and must not end the loop either
            return False


def run(settings: Settings) -> int:
    """Run ticks and dispatcher until SIGTERM or SIGINT, and return the exit status."""
    logs.configure(settings.log, role="beat")
    app = make_app(settings)
    liveness = Liveness()
    catalog, notices = wiring.open_catalog(settings), wiring.open_notices(settings)
    dispatcher = Dispatcher(
        catalog,
        CelerySender(app),
        workers=settings.workers,
        liveness=liveness,
        has_express=partial(has_express, wiring.open_presence(settings)),
    )
    webhooks = WebhookSender(
        catalog,
        settings=settings.webhooks,
        owner=new_owner("beat"),
        clock=time.time,
        figures=wiring.open_figures(settings),
    )
    heartbeat = Heartbeat.of(settings, role="beat", liveness=liveness, busy=None)
    stop = threading.Event()
    threads = [
        threading.Thread(target=dispatcher.run, args=[stop], name="dispatcher", daemon=True),
        threading.Thread(target=webhooks.run, args=[stop], name="webhooks", daemon=True),
        threading.Thread(
            target=notices.listen, args=[{"work_ready": dispatcher.wake}, stop], name="notices", daemon=True
        ),
    ]
    for thread in threads:
        thread.start()
    heartbeat.start()
    try:
        _tick(app, Timekeeper(catalog, RunsQueue(app), most=settings.schedules.runs))
    finally:
        stop.set()
        dispatcher.wake()
        for thread in threads:
            thread.join(timeout=5.0)
        heartbeat.close()
        catalog.dispose()
    return 0


def has_express(presence: Presence) -> bool:
    """Return whether a worker of short batches is there and moves. Where nobody can tell, all workers take them."""
    with suppress(redis.RedisError):
        return any(role.role == "express" and role.still_s is None for role in presence.roles())
    return False


def _tick(app: Celery, timekeeper: Timekeeper) -> None:
    """Run Celery Beat: a tick too many or too few after a restart changes nothing."""
    service: Any = Service(app, scheduler_cls=partial(Ticks, timekeeper=timekeeper))

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    service.start()
