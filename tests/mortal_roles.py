"""All roles of the queue side in one process, over a real catalog and real files: to be killed at any place.

The roles are those of `penstock worker`; in place of the queue there is a list in memory, in place of time a number.
What a process loses when it dies is lost here too: the queue, the leases' holders, everything that was not committed.
"""

import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from penstock.pipeline.chunking import ChunkingConfig, resolve
from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.collections import CollectionInfo, create_collection, get_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.failpoints import RECORD, VARIABLE
from penstock.storage.ids import TenantId
from penstock.storage.intake.dead import ids_of
from penstock.storage.intake.documents import Accepted, SubmittedDocument, accept
from penstock.storage.intake.removals import Removed, remove_documents
from penstock.storage.intake.revivals import Revived, drop_documents, retry_documents
from penstock.storage.notices import Notices
from penstock.storage.reembedding.commands import NewGeneration, Terms, begin, go_back
from penstock.storage.reembedding.records import ReembeddingInfo, find_reembedding
from penstock.workers import routes
from penstock.workers.components import Components
from penstock.workers.dispatcher import Dispatcher, Message
from penstock.workers.liveness import Liveness
from penstock.workers.run import PLANS

from .served_model import by_source

DIMENSIONS = 256
STUCK_S = 200.0
WORKERS = {"lease_s": 5.0, "resend_after_s": 5.0, "max_attempts": 4, "retry_delay_s": 0.5}
MODEL = f"hash-{DIMENSIONS}"
Trouble = Callable[[int], AbstractContextManager[object]]


class Queue:
    """A broker in memory, as the dispatcher sees it; subclasses deliver badly."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    def waiting(self, queue: str) -> int:
        return sum(message.queue == queue for message in self.messages)

    def take(self) -> Message | None:
        return self.messages.pop(0) if self.messages else None


@dataclass
class MortalRoles:
    """One installation below ``folder``. ``now``: what every clock shows. ``settings``: instead of the usual ones.

    ``express``: whether the role that takes short batches is there.
    """

    folder: Path
    now: float = field(default_factory=time.time)
    queue: Queue = field(default_factory=Queue)
    settings: dict[str, Any] = field(default_factory=dict)
    express: bool = False
    working: str = "api"
    raised: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        chosen = {"data_dir": self.folder, "broker_url": "redis://127.0.0.1:1/0", "workers": WORKERS}
        self.chosen = Settings(**{**chosen, **self.settings})
        self.catalog, self.objects = wiring.open_catalog(self.chosen), wiring.open_objects(self.chosen)

    def restore(self, template: Path) -> None:
        """Begin again with a copy of ``template``. The catalog stays opened: it knows its statements by then."""
        self.catalog.dispose()
        shutil.rmtree(self.folder)
        shutil.copytree(template, self.folder)
        self.objects, self.queue, self.now = wiring.open_objects(self.chosen), Queue(), time.time()

    def clock(self) -> float:
        return self.now

    def create(self, tenant: str, name: str = "docs") -> CollectionInfo:
        migrate(self.catalog)
        create_tenant(self.catalog, TenantId(tenant), now=self.now)
        chunking = resolve(ChunkingConfig(size_tokens=64), limit=None).model_dump()
        named = {"tenant": TenantId(tenant), "name": name, "model": MODEL, "dimensions": DIMENSIONS, "metric": "cosine"}
        return create_collection(self.catalog, **named, chunking=chunking, shards=1, now=self.now)

    def _place(self, tenant: str) -> dict[str, Any]:
        collection = get_collection(self.catalog, tenant=TenantId(tenant), name="docs")
        ids = {"collection_id": collection.id, "generation_id": collection.generation.id}
        return {"tenant": TenantId(tenant), **ids, "now": self.now}

    def submit(self, tenant: str, texts: dict[str, str]) -> Accepted:
        made = [SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in texts.items()]
        return accept(self.catalog, self.objects, **self._place(tenant), documents=made)

    def remove(self, tenant: str, sources: Sequence[str]) -> Removed:
        return remove_documents(self.catalog, **self._place(tenant), sources=sources)

    def retry(self, tenant: str, sources: Sequence[str]) -> Revived:
        return retry_documents(
            self.catalog, self.objects, **self._place(tenant), document_ids=self._ids(tenant, sources)
        )

    def drop(self, tenant: str, sources: Sequence[str]) -> Revived:
        return drop_documents(self.catalog, **self._place(tenant), document_ids=self._ids(tenant, sources))

    def reembed(self, tenant: str, model: str) -> ReembeddingInfo:
        """Ask for another generation, unless it serves already."""
        collection = get_collection(self.catalog, tenant=TenantId(tenant), name="docs")
        found = find_reembedding(self.catalog, collection.id)
        if found is not None and found.state == "switched":
            return found
        dimensions, chunking = int(model.partition("-")[2]), collection.generation.chunking
        chosen = NewGeneration(model, dimensions, "cosine", "none", chunking)
        terms = Terms(keep_s=3_600.0, forced=True)
        return begin(self.catalog, collection, chosen, terms=terms, now=self.now)

    def go_back(self, tenant: str) -> ReembeddingInfo:
        return go_back(self.catalog, get_collection(self.catalog, tenant=TenantId(tenant), name="docs"), now=self.now)

    def serving(self, tenant: str) -> str:
        """Return the model that serves."""
        return get_collection(self.catalog, tenant=TenantId(tenant), name="docs").generation.model

    def _ids(self, tenant: str, sources: Sequence[str]) -> Sequence[str]:
        place = self._place(tenant)
        found = ids_of(self.catalog, tenant=place["tenant"], collection_id=place["collection_id"], sources=sources)
        return list(found.values())

    @contextmanager
    def roles(self, *names: str) -> Iterator[Callable[[Message], None]]:
        """Open these roles, all that are there by default, in this process; gives what works on a message."""
        liveness, tasks = Liveness(), {}
        there = ("chunk", "embed", "index", "maintenance", *(["express"] if self.express else []))
        with ExitStack() as stack:
            stack.enter_context(_in_this_process(self))
            for name in names or there:
                module, _, kind = PLANS[name].work.partition(":")
                role = getattr(import_module(f"penstock.workers{module}"), kind)(self.chosen, liveness=liveness)
                role.open()
                stack.callback(role.close)
                queue = routes.EXPRESS_QUEUE if name == "express" else ""  # it does what others do, of its own queue
                tasks |= {(queue, task): (name, body) for task, body in role.tasks().items()}

            def work(message: Message) -> None:
                name, body = tasks.get((message.queue, message.task)) or tasks["", message.task]
                self.mark(name)
                try:
                    body(*([message.argument] if message.argument != "" else []))
                except Exception as error:  # noqa: BLE001 as `workers.run.register`: only the ledger decides
                    self.raised.append(f"{message.task}: {error!r}")

            yield work

    def run(self, *, rounds: int = 100, trouble: Trouble = lambda _: nullcontext()) -> int:
        """Let the dispatcher send and the roles work, and time pass, until nothing is left to do.

        ``trouble``: what surrounds each round, by its number. Returns how many rounds it took.
        """
        dispatcher = Dispatcher(
            self.catalog,
            self.queue,
            workers=self.chosen.workers,
            liveness=Liveness(),
            has_express=lambda: self.express,
            clock=self.clock,
        )
        with self.roles() as work:
            for number in range(rounds):
                with trouble(number):
                    self.mark("beat")
                    dispatcher.turn_safely()
                    message = self.queue.take()
                    self.now += 0.2 if message else self.chosen.workers.lease_s + 1
                    if message is not None:
                        work(message)
                if message is None and not self.unfinished():
                    return number
        raise AssertionError(f"not over after {rounds} rounds: {self.states()}")

    def collect(self) -> None:
        """Let maintenance do what it does at a tick."""
        with self.roles("maintenance") as work:
            work(Message(routes.COLLECT, routes.COLLECT_QUEUE, ""))

    def mark(self, role: str) -> None:
        """Note in the record of failpoints who works from here on."""
        if role != self.working and (record := os.environ.get(RECORD)):
            with Path(record).open("a") as file:
                file.write(f"# {role}\n")
        self.working = role

    def listed(self, tenant: str) -> dict[str, DocumentInfo]:
        place = self._place(tenant)
        page = list_documents(self.catalog, tenant=TenantId(tenant), collection_id=place["collection_id"], limit=1_000)
        return {info.source: info for info in page}

    def states(self) -> dict[str, list[str]]:
        """Return the states of all document versions, by source."""
        with self.catalog.read() as connection:
            rows = connection.exec_driver_sql(
                "SELECT documents.source, versions.state FROM versions JOIN documents ON documents.id ="
                " versions.document_id AND documents.collection_id = versions.collection_id ORDER BY versions.id"
            ).all()
        found: dict[str, list[str]] = {}
        for source, state in rows:
            found.setdefault(source, []).append(state)
        return found

    def unfinished(self) -> bool:
        with self.catalog.read() as connection:
            jobs = connection.exec_driver_sql("SELECT count(*) FROM jobs WHERE state = 'running'").scalar()
            open_ones = "SELECT count(*) FROM batches WHERE state NOT IN ('done', 'dead')"
            return bool(jobs or connection.exec_driver_sql(open_ones).scalar())

    def searchable(self, tenant: str) -> dict[str, list[tuple[int, str]]]:
        """Return what an exhaustive search finds: by source, the (ordinal, text) of every chunk."""
        serving = get_collection(self.catalog, tenant=TenantId(tenant), name="docs").generation
        vector = np.random.default_rng(1).standard_normal(serving.dimensions)
        snapshots = wiring.new_snapshots(self.chosen, self.catalog, self.objects)
        try:
            with snapshots.get(TenantId(tenant), serving.id) as snapshot:
                hits = snapshot.search(vector, k=100_000, now=self.now)
                return by_source((hit.document.source, hit.ordinal, hit.text) for hit in hits)
        finally:
            snapshots.close()

    def close(self) -> None:
        self.catalog.dispose()


@contextmanager
def _in_this_process(line: MortalRoles) -> Iterator[None]:
    """Give roles the line's catalog and clock, and keep them from changing the process that the tests run in."""
    opened = Components.open.__func__

    def open_here(kind: type[Components], settings: Settings, **options: Any) -> Components:
        made = opened(kind, settings, **options)
        return replace(made, catalog=line.catalog, clock=line.clock, notices=Notices(None))

    class NoAlarm:
        def after(self, seconds: float) -> nullcontext[None]:
            return nullcontext()

    with (
        patch.object(Components, "open", classmethod(open_here)),
        patch("penstock.workers.chunk.Alarm", NoAlarm),
        patch.object(resource, "setrlimit", lambda *_: None),
        patch("penstock.workers.pacing.LEAST_S", 0.0),
        patch("penstock.workers.pacing.SHARE", 0.0),
    ):
        yield


def dies(
    work: Callable[[], object], *, at: str | None = None, record: Path | None = None, stuck_s: float = STUCK_S
) -> bool:
    """Do ``work`` in a child process, which dies at the failpoint ``at``. Returns whether it came to that.

    What it raises is raised here, as an AssertionError. A child that stands still is killed: it may have been forked
    while another thread held a lock, which nobody will ever give back to it. That is a death, too, at another place.
    """
    ours, theirs = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(ours)
        try:
            os.environ.update({VARIABLE: at} if at else {})
            os.environ.update({RECORD: str(record)} if record else {})
            work()
        except BaseException:  # noqa: BLE001 the parent has to know
            os.write(theirs, traceback.format_exc()[-60_000:].encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as told:
        if not select.select([told], [], [], stuck_s)[0]:  # it ends with the child, if nothing was told before
            os.kill(child, signal.SIGKILL)
        raised = told.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert not raised, raised
    assert status in {0, -signal.SIGKILL}, f"the child ended with {status}"
    return status == -signal.SIGKILL
