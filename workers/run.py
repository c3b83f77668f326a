"""Starts one role: builds its Celery worker with the pool, queues and limits that suit it.

``python -m penstock.workers ROLE [--config FILE] [--shard N …]``; `penstock worker ROLE` becomes this process.
"""

import argparse
import logging
import os
import socket
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

from celery import Celery, signals
from celery.platforms import SecurityWarning
from celery.worker import state

from penstock.pipeline.errors import PipelineError
from penstock.settings import logs, wiring
from penstock.settings.errors import SettingsError
from penstock.settings.logs import log_failure
from penstock.settings.model import Settings
from penstock.settings.sources import load
from penstock.storage.catalog.migrations import check_schema
from penstock.storage.errors import StorageError

from . import routes
from .app import make_app
from .errors import UnknownRole, WorkerError
from .heartbeat import EVERY_S, Heartbeat
from .liveness import Liveness
from .roles import Role

log = logging.getLogger(__name__)
KIBIBYTE = 1024
AUTOGROUP = Path("/proc/self/autogroup")


@dataclass(frozen=True)
class Plan:
    """How one role runs. ``work``: where its `Role` is; imported only in a process of that role.

    ``niceness``: whoever waits for an answer comes first, then a few documents, then many, and merges last.
    """

    work: str
    pool: str  # prefork: untrusted files and long CPU work; threads: waiting; solo: one at a time by design
    concurrency: Callable[[Settings], int]
    results: bool = False
    niceness: int = 0

    @property
    def forks(self) -> bool:
        return self.pool == "prefork"


PLANS: Mapping[str, Plan] = {
    "chunk": Plan(".chunk:Chunker", "prefork", lambda settings: settings.workers.chunk_processes, niceness=10),
    "embed": Plan(".embed:Embedding", "threads", lambda settings: settings.workers.embed_threads, niceness=10),
    "express": Plan(".express:Express", "prefork", lambda _settings: 1),
    "index": Plan(".index:Writer", "solo", lambda _settings: 1),
    "search": Plan(".search:Searcher", "threads", lambda settings: settings.workers.search_threads, results=True),
    "maintenance": Plan(
        ".maintenance:Maintenance", "prefork", lambda settings: settings.workers.merge_processes, niceness=15
    ),
}
PROGRAMS = {"beat": ".beat:run", "flower": ".monitor:run"}  # roles that are no Celery workers
ROLES = (*PLANS, *PROGRAMS)


def main(arguments: Sequence[str]) -> int:
    """Run a role until it is told to stop. Returns the exit status; what went wrong is one line on standard error."""
    parser = argparse.ArgumentParser(prog="penstock worker", description="Run one role of Penstock.")
    parser.add_argument("role", help=", ".join(ROLES))
    parser.add_argument("--config", type=Path, help="settings file")
    parser.add_argument("--shard", type=int, action="append", help="index: write this shard only; may be repeated")
    given = parser.parse_args(arguments)
    try:
        return run_role(given.role, load(given.config), shards=given.shard)
    except (SettingsError, WorkerError, StorageError, PipelineError) as error:
        print(f"penstock worker {given.role}: {error}", file=sys.stderr)  # noqa: T201 the log may not be set up yet
        return 1


def run_role(role: str, settings: Settings, *, shards: Sequence[int] | None = None) -> int:
    """Run one role in this process until SIGTERM or SIGINT, and return its exit status.

    Raises:
        UnknownRole: there is no such role, or no such shard.
        InvalidSettings: there are collections of a shard that ``workers.shards`` leaves without a writer.
        Unavailable, Unsupported: the catalog is not there, or not of this program's schema.
    """
    if role not in ROLES:
        raise UnknownRole(f"there is no role {role!r}: choose one of {', '.join(ROLES)}")
    if role == "flower":
        return int(_imported(PROGRAMS[role])(settings))
    _check_catalog(settings)
    if role in PROGRAMS:
        return int(_imported(PROGRAMS[role])(settings))
    return _run_worker(role, settings, queues=routes.role_queues(role, shards=_written(settings, shards)))


def _check_catalog(settings: Settings) -> None:
    catalog = wiring.open_catalog(settings)
    try:
        check_schema(catalog)
        wiring.check_shards(settings, catalog)
    finally:
        catalog.dispose()


def _written(settings: Settings, shards: Sequence[int] | None) -> Sequence[int]:
    """Return the shards that an index process writes: all of them unless it was told otherwise."""
    if shards is None:
        return range(settings.workers.shards)
    if unknown := [shard for shard in shards if not 0 <= shard < settings.workers.shards]:
        raise UnknownRole(f"there is no shard {unknown[0]}: workers.shards is {settings.workers.shards}")
    return shards


def _run_worker(role: str, settings: Settings, *, queues: list[str]) -> int:
    plan = PLANS[role]
    give_way(plan.niceness)
    logs.configure(settings.log, role=role)
    # Celery warns root of pickled messages; ours are JSON, and in a container everyone may be root.
    warnings.simplefilter("ignore", SecurityWarning)
    liveness = Liveness()
    work: Role = _imported(plan.work)(settings, liveness=liveness)
    app = make_app(settings, results=plan.results)
    for name, body in work.tasks().items():
        register(app, name=name, body=body, liveness=liveness)
    heartbeat = Heartbeat.of(settings, role=role, liveness=liveness, busy=lambda: len(state.active_requests))
    _connect_signals(work, liveness=liveness, heartbeat=heartbeat, forks=plan.forks)
    worker = _worker(app, role, settings, queues=queues)
    if plan.forks:
        return _ran(worker, closing=[heartbeat.close])
    work.open()
    heartbeat.start()
    return _ran(worker, closing=[heartbeat.close, work.close])


def give_way(niceness: int) -> None:
    """Let others come first at the processor, in this process and its children.

    Where Linux shares it by session (autogroups), which it does for programs outside of containers, niceness counts
    inside a session only, and a session has one of its own. That is set where the session is this process's.
    """
    os.nice(niceness)
    if niceness and os.getsid(0) == os.getpid():
        with suppress(OSError):
            AUTOGROUP.write_text(str(niceness))


def _worker(app: Celery, role: str, settings: Settings, *, queues: list[str]) -> Any:
    plan = PLANS[role]
    return app.Worker(
        hostname=f"{role}-{os.getpid()}@{socket.gethostname()}",
        pool=plan.pool,
        concurrency=plan.concurrency(settings),
        queues=queues,
        loglevel=settings.log.level.upper(),
        without_gossip=True,  # workers have nothing to tell each other, and gossip breaks on reconnects (5.7.0)
        without_mingle=True,
        max_memory_per_child=settings.workers.chunk_memory_bytes // KIBIBYTE if plan.forks else None,
        quiet=True,
    )


def _ran(worker: Any, *, closing: Sequence[Callable[[], None]]) -> int:
    """Run the worker until it is told to stop, close what was opened, and return the exit status."""
    try:
        worker.start()
    finally:
        for close in closing:
            close()
    return int(worker.exitcode or 0)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module, __package__), name)


def register(app: Celery, *, name: str, body: Callable[..., Any], liveness: Liveness) -> None:
    """Make ``body`` the task ``name``. What it raises is logged and kept from the broker: the ledger sends again."""

    @wraps(body, assigned=("__doc__",))
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return body(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 the broker must not keep what the ledger decides about
            log_failure(log, f"{name} failed", error, extra=_about(args))
            return None
        finally:
            liveness.moved()

    app.task(name=name)(run)


def _about(args: Sequence[Any]) -> dict[str, Any]:
    """Return what a message of the dispatcher is about: a batch, or the shard of a writer."""
    match args:
        case [str(batch)] if batch.startswith("batch_"):
            return {"batch": batch}
        case [int(shard)]:
            return {"shard": shard}
        case _:
            return {}


def _connect_signals(work: Role, *, liveness: Liveness, heartbeat: Heartbeat, forks: bool) -> None:
    keep = {"weak": False}  # the receivers are closures
    signals.setup_logging.connect(lambda **_: None, **keep)  # a receiver keeps Celery from setting up logging
    signals.worker_shutting_down.connect(lambda **_: liveness.stop(), **keep)
    if not forks:
        return
    signals.worker_process_init.connect(lambda **_: work.open(), **keep)
    signals.worker_process_shutdown.connect(lambda **_: work.close(), **keep)

    def start_timer(sender: Any, **_: Any) -> None:
        # A thread in a process that forks would leave its locks behind in the children: the event loop's timer beats.
        heartbeat.beat()
        sender.timer.call_repeatedly(EVERY_S, heartbeat.beat)

    signals.worker_ready.connect(start_timer, **keep)
