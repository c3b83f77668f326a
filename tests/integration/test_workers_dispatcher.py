"""The dispatcher over a real ledger, with a queue that can be down."""

import itertools
import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.settings.model import Workers
from penstock.storage import ledger
from penstock.storage.catalog import cancelling
from penstock.storage.catalog.collections import CollectionInfo, create_collection, shard_of
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import cancelling_steps, get_job, list_jobs
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import versions
from penstock.storage.catalog.tenants import create_tenant, list_tenants
from penstock.storage.ids import TenantId
from penstock.storage.intake.documents import SubmittedDocument, accept
from penstock.storage.ledger.due import look
from penstock.storage.objects.store import ObjectStore
from penstock.workers import routes
from penstock.workers.dispatcher import SHARD_BATCHES, Dispatcher, Message
from penstock.workers.liveness import Liveness

from ..memory_objects import MemoryObjects

ACME = TenantId("acme")


class Queue:
    """A broker in memory that can be down."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.messages: list[Message] = []
        self.down = False
        self._clock = clock
        self._ends: dict[Message, float] = {}

    def send(self, messages):
        if self.down:
            raise ConnectionError("no broker")
        self.messages += messages
        for message in messages:
            self._ends[message] = self._clock() + (message.expires_s or math.inf)

    def read(self) -> Message | None:
        """Return the oldest message that has not expired, and drop those before it; None: there is none."""
        while self.messages:
            message = self.messages.pop(0)
            if self._ends[message] > self._clock():
                return message
        return None

    def waiting(self, queue):
        if self.down:
            raise ConnectionError("no broker")
        return sum(message.queue == queue for message in self.messages)

    def taken(self) -> list[Message]:
        taken, self.messages = self.messages, []
        return taken


class Bench:
    """A catalog with one collection, a clock that stands still, and a dispatcher."""

    def __init__(self, catalog: Catalog, objects: ObjectStore) -> None:
        self.catalog, self.objects = catalog, objects
        self.now = 1_000.0
        self.queue = Queue(lambda: self.now)
        self.workers = Workers(queue_depth=4, chunk_processes=1, resend_after_s=30.0, tenant_percent=100)
        self.dispatcher = Dispatcher(
            catalog, self.queue, workers=self.workers, liveness=Liveness(), clock=lambda: self.now
        )
        self.submitted = 0

    def submit(self, collection: CollectionInfo, *, count: int = 1, size: int = 10) -> None:
        documents = [
            SubmittedDocument(source=f"s{self.submitted + number}", filename="a.txt", data=b"x" * size)
            for number in range(count)
        ]
        self.submitted += count
        accept(
            self.catalog,
            self.objects,
            tenant=collection.tenant_id,
            collection_id=collection.id,
            generation_id=collection.generation.id,
            documents=documents,
            now=self.now,
        )

    def collection(self, tenant: TenantId, *, shards: int = 1) -> CollectionInfo:
        create_tenant(self.catalog, tenant, now=self.now)
        return self._made(tenant, "docs", shards=shards)

    def _made(self, tenant: TenantId, name: str, *, shards: int) -> CollectionInfo:
        return create_collection(
            self.catalog,
            tenant=tenant,
            name=name,
            model="hash",
            dimensions=256,
            metric="cosine",
            chunking={},
            shards=shards,
            now=self.now,
        )

    def merges(self, tenant: TenantId, *, count: int) -> list[str]:
        """Open a merge in each of ``count`` collections of a tenant."""
        create_tenant(self.catalog, tenant, now=self.now)
        made = [self._made(tenant, f"docs{number}", shards=1) for number in range(count)]
        return [
            str(
                ledger.open_merge(
                    self.catalog, generation_id=one.generation.id, details={"segments": ["s1"]}, now=self.now
                )
            )
            for one in made
        ]

    def finish_chunk(self, batch_id: str) -> None:
        """Do what the chunk role does, with one part of one chunk per document."""
        claim = self.claim(batch_id)
        parts = [
            ledger.EmbedPart(
                batch_id=f"{version.id}-part",
                group_id=f"{version.id}-group",
                part=0,
                input="chunks",
                document_version_ids=[version.id],
                chunk_counts={version.id: 1},
                chunk_count=1,
                size_bytes=1,
                titles={},
            )
            for version in claim.versions
        ]
        self.objects.put("chunks", [b"chunks"])
        ledger.finish_chunking(self.catalog, self.objects, claim, parts=parts, failed=[], now=self.now)

    def finish_embed(self, batch_id: str) -> None:
        ledger.finish_embedding(self.catalog, self.claim(batch_id), output="vectors", cache_hits=0, now=self.now)

    def claim(self, batch_id: str) -> ledger.Claim:
        claim = ledger.claim(self.catalog, batch_id, owner="me", lease_s=60.0, now=self.now, max_attempts=5)
        assert claim is not None
        return claim


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.sqlite3'}")
    migrate(catalog)
    yield Bench(catalog, MemoryObjects())
    catalog.dispose()


def test_accepted_documents_become_one_chunk_message_with_nothing_but_an_id(bench):
    bench.submit(bench.collection(ACME), count=3)

    assert bench.dispatcher.turn() == 1
    [message] = bench.queue.taken()
    assert (message.task, message.queue) == (routes.CHUNK, "chunk")
    assert len(bench.claim(str(message.argument)).versions) == 3
    assert bench.dispatcher.turn() == 0


def test_each_stage_is_sent_to_its_own_queue(bench):
    bench.submit(bench.collection(ACME))
    for task, finish in [(routes.CHUNK, bench.finish_chunk), (routes.EMBED, bench.finish_embed)]:
        bench.dispatcher.turn()
        [message] = bench.queue.taken()
        assert message.task == task
        finish(str(message.argument))
    bench.dispatcher.turn()

    assert bench.queue.taken() == [Message(routes.INDEX, "index.0", 0)]


def test_one_message_per_shard_waits_however_many_batches_are_ready(bench):
    collection = bench.collection(ACME)
    for _ in range(2):
        bench.submit(collection, count=3)
        for task, finish in [(routes.CHUNK, bench.finish_chunk), (routes.EMBED, bench.finish_embed)]:
            bench.dispatcher.turn()
            mine = [message for message in bench.queue.messages if message.task == task]
            bench.queue.messages = [message for message in bench.queue.messages if message.task != task]
            for message in mine:
                finish(str(message.argument))
    bench.dispatcher.turn()
    bench.dispatcher.turn()

    assert bench.queue.messages == [Message(routes.INDEX, "index.0", 0)]
    assert (
        len(ledger.take_ready(bench.catalog, stage="index", now=bench.now, limit=SHARD_BATCHES, resend_after_s=1)) == 0
    )


def test_a_shard_without_a_writer_holds_up_nobody_else_and_is_named_once(bench, caplog):
    """Somebody lowered workers.shards: its queue does not exist, and sending to it would fail."""
    for collection in (bench.collection(ACME, shards=1_000), bench.collection(TenantId("other"))):
        bench.submit(collection)
    for task, finish in [(routes.CHUNK, bench.finish_chunk), (routes.EMBED, bench.finish_embed)]:
        bench.dispatcher.turn()
        for message in bench.queue.taken():
            assert message.task == task
            finish(str(message.argument))
    bench.submit(bench.collection(TenantId("third")))
    for _ in range(3):
        bench.dispatcher.turn()
        bench.now += 40

    assert {message.queue for message in bench.queue.taken()} == {"index.0", "chunk"}
    [record] = [record for record in caplog.records if "workers.shards" in record.getMessage()]
    assert record.shard == shard_of(ACME, shards=1_000)


@pytest.mark.parametrize("there", [True, False])
def test_short_batches_are_sent_to_their_own_worker_while_one_is_there(bench, there):
    bench.dispatcher = Dispatcher(
        bench.catalog,
        bench.queue,
        workers=bench.workers,
        liveness=Liveness(),
        has_express=lambda: there,
        clock=lambda: bench.now,
    )
    many, few = bench.collection(ACME), bench.collection(TenantId("few"))
    bench.submit(many, count=100)
    bench.submit(few, count=3)
    bench.dispatcher.turn()
    messages = bench.queue.taken()
    assert sorted(message.queue for message in messages) == (["chunk", "express"] if there else ["chunk", "chunk"])
    assert {message.task for message in messages} == {routes.CHUNK}
    there = False
    bench.now += 31.0  # nobody took them, and the worker is gone
    bench.dispatcher.turn()
    assert {message.queue for message in bench.queue.taken()} == {"chunk"}


@pytest.mark.parametrize("limit", [{"max_staged_chunks": 64}, {"max_chunks_per_publish": 13}])
def test_that_nobody_writes_a_shard_is_said_once_and_no_more_is_cut_for_it(bench, caplog, limit):
    bench.dispatcher = Dispatcher(
        bench.catalog,
        bench.queue,
        workers=bench.workers.model_copy(update=limit),
        liveness=Liveness(),
        clock=lambda: bench.now,
    )
    collection = bench.collection(ACME)
    for _ in range(20):
        bench.submit(collection, count=3)
        bench.dispatcher.turn()
        for message in bench.queue.taken():
            if message.task in (routes.CHUNK, routes.EMBED):
                {routes.CHUNK: bench.finish_chunk, routes.EMBED: bench.finish_embed}[message.task](
                    str(message.argument)
                )
        bench.now += 10
    [record] = [record for record in caplog.records if "penstock worker index" in record.getMessage()]
    assert record.shard == 0
    wanted = sa.select(versions.c.state, sa.func.count()).group_by(versions.c.state)
    with bench.catalog.read() as connection:
        counts = dict(map(tuple, connection.execute(wanted)))
    assert counts["indexing"] <= 12, "four batches of sixteen chunks, and what was on its way"
    assert sum(counts.values()) == 60


def test_the_queue_stays_shallow_and_the_rest_waits_in_the_ledger(bench):
    bench.submit(bench.collection(ACME), count=40, size=600_000)
    for _ in range(5):
        bench.dispatcher.turn()

    assert len(bench.queue.messages) == bench.workers.queue_depth
    for message in bench.queue.taken():
        bench.finish_chunk(str(message.argument))
    bench.dispatcher.turn()
    assert [message.task for message in bench.queue.messages] == [routes.EMBED] * 4


def test_nothing_more_is_chunked_while_embedding_is_behind(bench):
    collection = bench.collection(ACME)
    bench.submit(collection, count=4)
    bench.dispatcher.turn()
    bench.finish_chunk(str(bench.queue.taken()[0].argument))
    bench.dispatcher.turn()  # four embed batches fill the queue
    bench.submit(collection, count=4)
    bench.queue.taken()

    assert bench.dispatcher.turn() == 0


def test_a_message_that_was_lost_is_sent_again(bench):
    bench.submit(bench.collection(ACME))
    bench.dispatcher.turn()
    [lost] = bench.queue.taken()
    bench.now += 29
    assert bench.dispatcher.turn() == 0
    bench.now += 10

    assert bench.dispatcher.turn() == 1
    assert bench.queue.taken() == [lost]


def test_a_queue_that_nobody_reads_does_not_grow_with_every_resend(bench):
    bench.submit(bench.collection(ACME), count=40, size=600_000)
    for _ in range(20):
        bench.dispatcher.turn()
        bench.now += 40

    assert len(bench.queue.messages) == bench.workers.queue_depth
    assert look(bench.catalog, now=bench.now).in_flight["chunk"] == 0
    bench.queue.taken()  # somebody reads it at last, and drops what expired
    assert bench.dispatcher.turn() == bench.workers.queue_depth


def test_messages_of_batches_end_long_after_they_were_sent_again_and_those_to_writers_never(bench):
    bench.submit(bench.collection(ACME))
    for task, finish in [(routes.CHUNK, bench.finish_chunk), (routes.EMBED, bench.finish_embed)]:
        bench.dispatcher.turn()
        [message] = bench.queue.taken()
        assert message.task == task
        assert message.expires_s >= 600 > 4 * bench.workers.resend_after_s
        finish(str(message.argument))
    bench.dispatcher.turn()

    assert [message.expires_s for message in bench.queue.taken()] == [None]


def test_one_tenant_leaves_room_in_the_queue_and_who_comes_finds_it_at_once(bench):
    workers = bench.workers.model_copy(update={"tenant_percent": 67})
    bench.dispatcher = Dispatcher(
        bench.catalog, bench.queue, workers=workers, liveness=Liveness(), clock=lambda: bench.now
    )
    bench.submit(bench.collection(ACME), count=40, size=600_000)
    for _ in range(3):
        bench.dispatcher.turn()
    assert len(bench.queue.messages) == 3
    bench.submit(bench.collection(TenantId("other")))
    bench.dispatcher.turn()
    assert len(bench.queue.messages) == 4


def test_a_paused_tenant_is_sent_nothing_and_does_not_keep_the_dispatcher_busy(bench, monkeypatch):
    bench.submit(bench.collection(ACME))
    ledger.pause(bench.catalog, now=bench.now, tenant=ACME)
    bench.dispatcher.turn()  # with what it does now and then
    writes = []
    monkeypatch.setattr(bench.catalog, "write", writes.append)
    assert bench.dispatcher.turn() == 0
    assert writes == []
    monkeypatch.undo()
    ledger.resume(bench.catalog, tenant=ACME)
    assert bench.dispatcher.turn() == 1


def test_a_tenant_with_many_merges_does_not_keep_the_others_waiting(bench):
    bench.merges(ACME, count=20)
    bench.dispatcher.turn()
    assert len(bench.queue.messages) == 4
    [late] = bench.merges(TenantId("other"), count=1)

    done = 0
    while late not in [message.argument for message in bench.queue.messages]:
        message = bench.queue.messages.pop(0)
        ledger.drop_merge(bench.catalog, bench.claim(str(message.argument)), error="", now=bench.now)
        done += 1
        bench.dispatcher.turn()
    assert done <= 4


def test_long_merges_of_one_tenant_do_not_keep_the_others_waiting(bench):
    """While one runs, the dispatcher goes on; and what expired meanwhile is dropped when it is read."""
    bench.merges(ACME, count=20)
    [late] = bench.merges(TenantId("other"), count=1)
    bench.dispatcher.turn()
    assert [message.argument for message in bench.queue.messages].index(late) == 1
    [later] = bench.merges(TenantId("third"), count=1)

    made: list[str] = []
    while later not in made and len(made) < 10:
        message = bench.queue.read()
        claim = message and ledger.claim(
            bench.catalog, str(message.argument), owner="me", lease_s=9_000.0, now=bench.now, max_attempts=5
        )
        for _ in range(7 if claim else 1):
            bench.now += 100
            bench.dispatcher.turn()
        if claim:
            ledger.drop_merge(bench.catalog, claim, error="", now=bench.now)
            made.append(str(claim.batch_id))
    assert late in made[:2]
    assert later in made[:6]


def test_an_outage_of_the_broker_loses_nothing_and_marks_nothing_more_as_sent(bench):
    collection = bench.collection(ACME)
    bench.queue.down = True
    for _ in range(5):
        bench.submit(collection)
        bench.dispatcher.turn_safely()
    assert look(bench.catalog, now=bench.now).in_flight["chunk"] == 0
    bench.queue.down = False
    bench.dispatcher.turn_safely()
    bench.now += 40
    bench.dispatcher.turn_safely()

    sent = {str(message.argument) for message in bench.queue.taken()}
    assert sum(len(bench.claim(batch).versions) for batch in sent) == 5


def test_while_the_broker_is_away_the_ledger_is_put_right_all_the_same(bench, monkeypatch):
    """Claims of workers that died, jobs that somebody died cancelling, counts of backlogs: none needs a broker."""
    collection = bench.collection(ACME)
    bench.submit(collection)
    bench.dispatcher.turn_safely()
    bench.claim(str(bench.queue.taken()[0].argument))  # and its worker dies
    bench.queue.down = True
    monkeypatch.setattr(cancelling, "AT_ONCE", 1)
    bench.submit(collection, count=3)
    bench.dispatcher.turn_safely()
    cancelled, *_ = list_jobs(bench.catalog, tenant=ACME)
    next(cancelling_steps(bench.catalog, tenant=ACME, job_id=cancelled.id, now=bench.now))
    bench.now += 61.0
    bench.dispatcher.turn_safely()

    assert look(bench.catalog, now=bench.now).running["chunk"] == 0
    assert get_job(bench.catalog, tenant=ACME, job_id=cancelled.id).documents == {"cancelled": 3}
    (tenant,) = [one for one in list_tenants(bench.catalog) if one.id == ACME]
    assert tenant.waiting.documents == 0


def test_a_turn_that_waited_long_for_the_broker_is_followed_by_the_next_one_soon(bench, monkeypatch):
    """A broker that stood still for 10 s must not hold up what is due for another 30 s."""
    clock = itertools.count(step=10.0)
    monkeypatch.setattr("penstock.workers.dispatcher.time.thread_time", lambda: next(clock))
    waits = []

    class Stop(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            self.set()
            return True

    bench.dispatcher.wake()
    bench.dispatcher.run(Stop())

    assert waits == [1.0]


def test_a_broken_ledger_does_not_end_the_loop(bench, monkeypatch):
    def broken(*_args, **_kwargs):
        raise OSError("disk I/O error")

    monkeypatch.setattr(ledger, "take_ready", broken)
    bench.dispatcher.turn_safely()
    monkeypatch.undo()
    bench.submit(bench.collection(ACME))
    bench.dispatcher.turn_safely()

    assert len(bench.queue.messages) == 1
