"""The role classes in one process, without a queue: what each does when something is wrong."""

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fakeredis
import pytest
import sqlalchemy as sa

from penstock.pipeline.chunking import ChunkingConfig, resolve
from penstock.pipeline.embedding import model_card
from penstock.pipeline.embedding.hashing import Hashing
from penstock.pipeline.errors import InputRejected, ProviderMisconfigured, ProviderUnavailable
from penstock.settings import wiring
from penstock.settings.model import Embedding as EmbeddingSettings
from penstock.settings.model import Limits, Settings, Workers
from penstock.storage import ledger, paths
from penstock.storage.catalog.collections import CollectionInfo, change_retention, create_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import batches, generations, manifests, shards, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import Damaged, Unavailable
from penstock.storage.figures import Figures
from penstock.storage.grace import MIN_AGE_S
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.intake.documents import SubmittedDocument, accept
from penstock.storage.ledger.pruning import KEEP_S
from penstock.storage.publishing.publisher import PublishedManifest
from penstock.storage.search.snapshots import open_snapshot
from penstock.storage.segments.manifests import Manifest, Swap, read_manifest
from penstock.workers import documents, planning, routes, turn
from penstock.workers.chunk import Chunker
from penstock.workers.dispatcher import Dispatcher, Message
from penstock.workers.embed import Embedding
from penstock.workers.index import Writer
from penstock.workers.liveness import Liveness
from penstock.workers.maintenance import Maintenance

# The chunk role sets alarms, which the other method of timing tests out would lose.
pytestmark = pytest.mark.timeout(120, method="thread")

ACME = TenantId("acme")
DIMENSIONS = 256
NOBODY = "redis://127.0.0.1:1/0"  # no server: the cache misses, notices are lost


class Scripted(Hashing):
    """An embedder that raises what it is told to, then works."""

    def __init__(self) -> None:
        super().__init__(model_card(f"hash-{DIMENSIONS}"))
        self.failures: list[Exception] = []
        self.refused = "\0"

    def embed_passages(self, texts: Sequence[str]):
        if self.failures:
            raise self.failures.pop(0)
        for index, text in enumerate(texts):
            if self.refused in text:
                raise InputRejected("the provider refuses this text", index=index)
        return super().embed_passages(texts)


@dataclass
class Line:
    """All roles, and a dispatcher whose queue is worked off at once."""

    settings: Settings
    embedder: Scripted
    liveness: Liveness = field(default_factory=Liveness)
    messages: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.catalog, self.objects = wiring.open_catalog(self.settings), wiring.open_objects(self.settings)
        migrate(self.catalog)
        create_tenant(self.catalog, ACME, now=time.time())
        self.collection = self._collection()
        self.roles = [role(self.settings, liveness=self.liveness) for role in (Chunker, Embedding, Writer, Maintenance)]
        for role in self.roles:
            role.open()
        self.tasks = {name: body for role in self.roles for name, body in role.tasks().items()}
        self.dispatcher = Dispatcher(self.catalog, self, workers=self.settings.workers, liveness=self.liveness)

    def _collection(self) -> CollectionInfo:
        return create_collection(self.catalog, name="docs", now=time.time(), **self.options)

    @property
    def options(self) -> dict[str, Any]:
        """What collections are made with."""
        chunking = resolve(ChunkingConfig(size_tokens=16), limit=None).model_dump()
        of_vectors = {"model": f"hash-{DIMENSIONS}", "dimensions": DIMENSIONS, "metric": "cosine"}
        return {"tenant": ACME, "chunking": chunking, "shards": 1, **of_vectors}

    def send(self, messages: Sequence[Message]) -> None:
        self.messages += messages

    def waiting(self, _queue: str) -> int:
        return 0

    def submit(self, **texts: str) -> None:
        accept(
            self.catalog,
            self.objects,
            tenant=ACME,
            collection_id=self.collection.id,
            generation_id=self.collection.generation.id,
            documents=[SubmittedDocument(source, f"{source}.txt", text.encode()) for source, text in texts.items()],
            now=time.time(),
        )

    def run(self, *, only: Sequence[str] = (), patience_s: float = 20.0) -> None:
        """Work until nothing is under way, or until all that is left is for tasks other than ``only``."""
        deadline = time.monotonic() + patience_s
        while self.work(only=only) or self._is_left_for(only):
            assert time.monotonic() < deadline, self.rows()
            time.sleep(0.01)

    def _is_left_for(self, only: Sequence[str]) -> bool:
        """Say whether work waits, for one of these tasks if any are named: a batch may wait for its next turn."""
        stages = {task.rpartition(".")[2] for task in only}
        queued = [one for one in self.documents().values() if one.state == "queued"]
        return bool(queued and "chunk" in stages) or any(not only or one.stage in stages for one in self.open_batches())

    def work(self, *, only: Sequence[str] = ()) -> int:
        self.dispatcher.turn()
        chosen = [message for message in self.messages if not only or message.task in only]
        self.messages = [message for message in self.messages if message not in chosen]
        for message in chosen:
            self.tasks[message.task](message.argument)
        return len(chosen)

    def tick(self) -> None:
        """Let maintenance do what it does every few minutes, however recently it did."""
        self.roles[3]._next_tick_at = 0.0
        self.tasks[routes.COLLECT]()

    def rows(self, *conditions) -> Sequence[sa.Row]:
        with self.catalog.read() as connection:
            return connection.execute(sa.select(batches).where(*conditions)).all()

    def open_batches(self) -> Sequence[sa.Row]:
        return self.rows(batches.c.state.in_(("ready", "sent", "running")))

    def hurry(self) -> None:
        """Let what waits for its next attempt be due."""
        with self.catalog.write("hurry") as connection:
            connection.execute(sa.update(batches).where(batches.c.state == "ready").values(next_attempt_at=0.0))

    def documents(self) -> dict[str, DocumentInfo]:
        found = list_documents(self.catalog, tenant=ACME, collection_id=self.collection.id, limit=1_000)
        return {document.source: document for document in found}

    def states(self) -> dict[str, str]:
        return {source: document.state for source, document in self.documents().items()}

    def found(self) -> list[str]:
        """Return the sources of all chunks that a search finds, sorted: one entry per chunk."""
        snapshots = wiring.new_snapshots(self.settings, self.catalog, self.objects)
        with snapshots.get(ACME, self.collection.generation.id) as snapshot:
            hits = snapshot.search([1.0] * DIMENSIONS, k=10_000, now=time.time())
        snapshots.close()
        return sorted(hit.document.source for hit in hits)

    def staged(self) -> list[str]:
        return [info.name for info in self.objects.list(f"{paths.tenant_prefix(ACME)}staging/")]

    def close(self) -> None:
        for role in self.roles:
            role.close()
        self.catalog.dispose()


@pytest.fixture
def line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    embedder = Scripted()
    monkeypatch.setattr(wiring, "open_embedder", lambda *_args, **_values: embedder)
    monkeypatch.setattr(os, "nice", lambda _by: 0)  # the tests after this one want their turn
    settings = Settings(
        data_dir=tmp_path,
        broker_url=NOBODY,
        embedding=EmbeddingSettings(threads=1),
        limits=Limits(parse_timeout_s=20.0),
        workers=Workers(
            chunk_processes=1,
            max_attempts=2,
            lease_s=30.0,
            retry_delay_s=0.001,
            queue_depth=100,
            chunk_memory_bytes=1 << 45,  # it limits this very process
        ),
    )
    alarm = signal.getsignal(signal.SIGALRM)
    line = Line(settings, embedder)
    yield line
    line.close()
    signal.signal(signal.SIGALRM, alarm)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Figures:
    """Return what the roles of ``line``, which is named after it, have measured."""
    server = fakeredis.FakeServer()
    monkeypatch.setattr(wiring, "open_figures", lambda _settings: Figures(fakeredis.FakeRedis(server=server)))
    return Figures(fakeredis.FakeRedis(server=server))


WORDS = "the gate opens and the water of the river turns the wheel that drives the stones of the mill "


def test_accepted_documents_are_found_and_nothing_staged_is_left(line):
    line.submit(one=WORDS, two=WORDS * 5, three=WORDS * 40)
    line.run()

    assert line.states() == dict.fromkeys(("one", "two", "three"), "indexed")
    assert line.found().count("three") == line.documents()["three"].chunk_count > 10
    assert line.staged() == []


def test_roles_measure_their_attempts_stages_and_lags_and_whom_they_failed(measured, line):
    line.embedder.failures = [ProviderUnavailable("away")]
    line.embedder.refused = "forbidden"
    line.submit(one=WORDS, refused="a forbidden word", empty=" ")
    line.run()
    found = measured.read()

    def times(name: str, *labels: str) -> float:
        return sum(count for part, count in found.get((name, labels), {}).items() if part != "sum")

    done = {stage: times("penstock_attempts", stage, "done") for stage in ("chunk", "embed", "index")}
    assert done == {"chunk": 1, "embed": 1, "index": 1}
    assert times("penstock_attempts", "embed", "postponed") == 1
    assert {stage: times("penstock_stage_seconds", stage) for stage in done} == {"chunk": 1, "embed": 2, "index": 1}
    assert {stage: times("penstock_dispatch_lag_seconds", stage) for stage in done} == {
        "chunk": 1, "embed": 2, "index": 0
    }  # fmt: skip # a writer is not sent for one batch
    assert times("penstock_publish_lag_seconds") == 1
    assert {stage: times("penstock_failed_documents", stage) for stage in ("chunk", "embed")} == {
        "chunk": 1,
        "embed": 1,
    }
    assert times("penstock_embedded_chunks", "model") == len(line.found())


def test_a_segment_keeps_what_the_ledger_says_of_a_submission(line):
    """So that the catalog can be made again from the object store alone."""
    line.submit(one=WORDS, two=WORDS * 5)
    line.run()

    generation = generation_info(line.catalog, line.collection.generation.id)
    snapshot = open_snapshot(line.objects, generation)
    records = {record.version_id: record for reader in snapshot.readers.values() for record in reader.segment.documents}
    with line.catalog.read() as connection:
        rows = connection.execute(sa.select(versions)).all()
    assert len(rows) == 2
    for row in rows:
        same = {name: getattr(row, name) for name in ("filename", "media_type", "pack", "pack_offset", "size_bytes")}
        hashes = {"content_hash": row.content_hash.hex(), "metadata_hash": row.metadata_hash.hex()}
        assert records[row.id].original == {**same, **hashes}


def test_a_new_version_takes_the_place_of_the_old_one(line):
    line.submit(one=WORDS * 20)
    line.run()
    line.submit(one="something else altogether")
    line.run()

    assert line.found() == ["one"]


def test_an_outage_of_the_provider_costs_no_document_its_attempts(line):
    line.embedder.failures = [ProviderUnavailable("busy") for _ in range(6)]
    line.submit(one=WORDS)
    line.run()

    assert line.states() == {"one": "indexed"}
    assert line.embedder.failures == []


def test_a_provider_that_asks_to_wait_is_waited_for(line):
    line.embedder.failures = [ProviderUnavailable("busy", retry_after_s=50.0)]
    line.submit(one=WORDS)
    before = time.time()
    while not line.rows(batches.c.stage == "embed", batches.c.error == "busy"):
        line.work()

    [batch] = line.open_batches()
    assert (batch.state, batch.attempts) == ("ready", 0)
    assert batch.next_attempt_at >= before + 50.0


def test_a_wrong_setting_is_shown_and_waits_for_a_person(line):
    line.embedder.failures = [ProviderMisconfigured("no key", setting="embedding.openai_api_key")]
    line.submit(one=WORDS)
    while not line.rows(batches.c.stage == "embed", batches.c.error == "no key"):
        line.work()

    [batch] = line.open_batches()
    assert (batch.state, batch.attempts) == ("ready", 0)
    assert batch.next_attempt_at > time.time() + 30


def test_a_text_that_the_provider_refuses_fails_its_document_alone(line):
    line.embedder.refused = "forbidden"
    line.submit(one=WORDS, bad="a forbidden word", two=WORDS * 3, alsobad="forbidden too")
    line.run()

    assert line.states() == {"one": "indexed", "two": "indexed", "bad": "failed", "alsobad": "failed"}
    bad = line.documents()["bad"]
    assert (bad.stage, bad.error_code, bad.error) == ("embed", "input_rejected", "the provider refuses this text")
    assert set(line.found()) == {"one", "two"}


def test_when_the_only_document_of_a_batch_is_refused_the_batch_ends(line):
    line.embedder.refused = "forbidden"
    line.submit(bad="a forbidden word")
    line.run()

    assert line.states() == {"bad": "failed"}
    assert line.open_batches() == []


def test_an_error_nobody_expected_is_tried_again_and_then_each_document_alone(line):
    line.embedder.failures = [ZeroDivisionError("a defect")] * 2
    line.submit(one=WORDS, two=WORDS)
    line.run()

    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert line.rows(batches.c.details["quarantined"].as_boolean()) != []


def test_a_document_that_takes_too_long_fails_with_its_reason(line, monkeypatch):
    chunker = line.roles[0]
    chunker._limits = replace(chunker._limits, timeout_s=0.1)
    monkeypatch.setattr(documents, "parse", lambda *_args, **_values: time.sleep(30))
    line.submit(slow=WORDS)
    line.run()

    slow = line.documents()["slow"]
    assert (slow.state, slow.stage, slow.error_code) == ("failed", "chunk", "timeout")
    assert "limits.parse_timeout_s" in slow.error


def test_a_document_that_takes_too_much_memory_fails_alone(line, monkeypatch):
    real = documents.parse

    def parse(data, **values):
        if data == b"bomb":
            raise MemoryError
        return real(data, **values)

    monkeypatch.setattr(documents, "parse", parse)
    line.submit(bomb="bomb", one=WORDS)
    line.run()

    assert line.states() == {"bomb": "failed", "one": "indexed"}
    assert "workers.chunk_memory_bytes" in line.documents()["bomb"].error


@pytest.mark.parametrize("role", [0, 1, 2], ids=["chunk", "embed", "index"])
def test_an_object_store_that_does_not_answer_delays_work_which_is_handed_back_at_once(line, monkeypatch, role):
    objects = line.roles[role]._components.objects
    real, failures = objects.put, [Unavailable("the bucket does not answer")] * 5

    def put(*args):
        if failures:
            raise failures.pop()
        real(*args)

    monkeypatch.setattr(objects, "put", put)
    line.submit(one=WORDS, two=WORDS)
    waited: set[str] = set()
    while failures:
        line.work()
        waited |= {row.stage for row in line.open_batches() if row.postponed == "retrying"}
    line.run()  # leases last longer than this waits

    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert waited == {("chunk", "embed", "index")[role]}  # and its job says why
    assert line.rows(batches.c.state == "dead") == []


def test_whether_somebody_waits_need_not_be_known_to_finish_a_batch(line, monkeypatch):
    asked = []

    def away(*_args, **_values):
        asked.append(1)
        raise Unavailable("the catalog is locked")

    monkeypatch.setattr(turn, "LOOK_S", -1.0)
    monkeypatch.setattr(turn, "TURN_S", 1e9)
    monkeypatch.setattr(ledger, "others_wait", away)
    line.submit(one=WORDS, two=WORDS)
    line.run(only=[routes.CHUNK])

    assert asked
    assert line.states() == {"one": "embedding", "two": "embedding"}


@pytest.mark.parametrize("role", [0, 1, 2], ids=["chunk", "embed", "index"])
def test_a_full_disk_delays_work_and_fails_no_document(line, monkeypatch, role):
    objects = line.roles[role]._components.objects
    real, failures = objects.put, [OSError(errno.ENOSPC, "No space left on device")] * 5

    def put(*args):
        if failures:
            raise failures.pop()
        real(*args)

    monkeypatch.setattr(objects, "put", put)
    line.submit(one=WORDS, two=WORDS)
    line.run()

    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert not failures
    assert line.rows(batches.c.state == "dead") == []


def test_documents_whose_bytes_are_gone_fail_with_that_reason(line):
    line.submit(one=WORDS)
    [pack] = line.objects.list(f"{paths.tenant_prefix(ACME)}packs/")
    line.objects.delete(pack.name)
    line.run()

    assert line.documents()["one"].error_code == "bytes_lost"


@pytest.mark.parametrize(
    "damage",
    [lambda data: data.replace(b"second", b"sec\0nd"), lambda data: data[: -len(WORDS) - 3]],
    ids=["altered", "truncated"],
)
def test_a_document_whose_bytes_were_damaged_fails_alone_and_nothing_of_it_is_found(line, damage, caplog):
    line.submit(one=WORDS, two=f"the second document {WORDS}", three=WORDS)
    [pack] = line.objects.list(f"{paths.tenant_prefix(ACME)}packs/")
    path = line.objects.local_path(pack.name)
    path.write_bytes(damage(path.read_bytes()))
    line.run()

    damaged = {source: found for source, found in line.documents().items() if found.state == "failed"}
    assert damaged.keys() == {"two"} | ({"three"} if path.stat().st_size < pack.size_bytes else set())
    assert all((one.stage, one.error_code) == ("chunk", "bytes_damaged") for one in damaged.values())
    assert damaged["two"].error == "The stored bytes are damaged: submit it again."
    told = [record.getMessage() for record in caplog.records if pack.name in record.getMessage()]
    assert len(told) == len(damaged)
    assert set(line.found()) == {"one", "two", "three"} - damaged.keys()


@pytest.mark.parametrize("damage", [lambda data: b"\0" + data[1:], lambda data: data[1:]], ids=["altered", "truncated"])
def test_what_failed_because_its_bytes_were_damaged_is_indexed_when_submitted_again(line, damage):
    """The same bytes make a pack of the same name: what is damaged there must not stay."""
    line.submit(one=WORDS)
    [pack] = line.objects.list(paths.packs_prefix(ACME))
    path = line.objects.local_path(pack.name)
    path.write_bytes(damage(path.read_bytes()))
    line.run()
    assert line.documents()["one"].error_code == "bytes_damaged"

    line.submit(one=WORDS)
    line.run()
    assert line.states() == {"one": "indexed"}
    assert [info.name for info in line.objects.list(paths.packs_prefix(ACME))] == [pack.name]
    assert list(line.objects.scratch().iterdir()) == []


def test_staged_chunks_that_were_damaged_are_made_again(line):
    line.submit(one=WORDS, two=WORDS)
    line.run(only=[routes.CHUNK])
    [name] = line.staged()
    path = line.objects.local_path(name)
    path.write_bytes(path.read_bytes()[:-100])
    line.run()

    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert set(line.found()) == {"one", "two"}


def test_a_batch_that_cannot_be_published_is_tried_again_and_its_neighbours_are_not_held_up(line, monkeypatch):
    writer = line.roles[2]
    real, failures = writer._publisher.publish, [Damaged("the manifest is damaged")]

    def publish(*args, **values):
        if failures:
            raise failures.pop()
        return real(*args, **values)

    monkeypatch.setattr(writer._publisher, "publish", publish)
    line.submit(one=WORDS)
    line.run()

    assert line.states() == {"one": "indexed"}
    assert line.rows(batches.c.stage == "index")[0].attempts == 2


@pytest.mark.parametrize("damaged", ["manifest", "segment"])
@pytest.mark.parametrize("how", ["gone", "rotten"])
def test_what_comes_while_the_index_is_damaged_waits_uncounted_and_goes_on_once_it_is_whole(line, damaged, how):
    line.submit(one=WORDS)
    line.run()
    name = generation_info(line.catalog, line.collection.generation.id).manifest
    if damaged == "segment":
        [name] = read_manifest(line.objects, name).file_names
    path = line.objects.local_path(name)
    whole = path.read_bytes()
    path.unlink()
    if how == "rotten":
        path.write_bytes(bytes(byte ^ 1 for byte in whole))

    line.submit(one=f"{WORDS} changed", two=WORDS)
    for _ in range(6):  # more often than a batch is tried
        line.work()
        line.hurry()
    assert line.states() == {"one": "indexing", "two": "indexing"}
    [job, _] = list_jobs(line.catalog, tenant=ACME)
    assert job.held_up.paused
    assert name.rpartition("/")[2] in job.held_up.reason
    assert "penstock doctor --repair" in job.held_up.reason

    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    line.run()
    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert set(line.found()) == {"one", "two"}


def test_a_worker_that_was_told_to_stop_hands_its_batch_back_uncounted(line):
    line.submit(one=WORDS)
    line.liveness.stop()
    line.dispatcher.turn()
    for message in line.messages:
        line.tasks[message.task](message.argument)

    [batch] = line.open_batches()
    assert (batch.stage, batch.state, batch.attempts) == ("chunk", "ready", 0)


def test_a_worker_that_waited_long_for_the_ledger_still_has_its_whole_turn(line, monkeypatch):
    """Else batches would be taken apart, a document at a time, just when the ledger is busy."""
    now_s, usual = [0.0], ledger.claim

    def claim(*given, **options):
        now_s[0] += 60.0
        return usual(*given, **options)

    monkeypatch.setattr(ledger, "claim", claim)
    monkeypatch.setattr("penstock.workers.chunk.time", SimpleNamespace(perf_counter=lambda: now_s[0]))
    line.submit(one=WORDS, two=WORDS, three=WORDS)
    line.work(only=[routes.CHUNK])

    assert [batch.state for batch in line.rows(batches.c.stage == "chunk")] == ["done"]


def test_while_another_process_writes_the_shard_nothing_is_published_and_then_everything(line):
    line.submit(one=WORDS)
    line.run(only=[routes.CHUNK, routes.EMBED])
    with line.catalog.write() as connection:
        connection.execute(sa.insert(shards).values(shard=0, owner="another", epoch=7, expires_at=time.time() + 60))
    line.tasks[routes.INDEX](0)
    assert line.states() == {"one": "indexing"}

    with line.catalog.write() as connection:
        connection.execute(sa.update(shards).values(expires_at=0.0))
    line.run()
    assert line.states() == {"one": "indexed"}


def test_a_writer_whose_lease_was_taken_publishes_nothing_until_it_has_it_again(line):
    line.submit(one=WORDS)
    line.run()
    with line.catalog.write() as connection:  # it slept, and another writer came and went
        connection.execute(sa.update(shards).values(owner="another", epoch=shards.c.epoch + 1, expires_at=0.0))
    line.submit(two=WORDS)
    line.run()

    assert line.states() == {"one": "indexed", "two": "indexed"}
    assert sorted(set(line.found())) == ["one", "two"]


def test_many_small_publishes_leave_few_segments_and_everything_is_found_once(line):
    for number in range(20):
        line.submit(**{f"d{number}": f"{WORDS} number {number}"})
        line.run()

    with line.catalog.read() as connection:
        name = connection.scalar(sa.select(generations.c.manifest))
    assert len(read_manifest(line.objects, name).segments) < 10
    assert line.states() == {f"d{number}": "indexed" for number in range(20)}
    assert sorted(set(line.found())) == sorted(f"d{number}" for number in range(20))
    assert len(line.found()) == sum(document.chunk_count for document in line.documents().values())


def test_what_a_writer_took_is_kept_for_as_long_as_what_it_publishes_first_takes(line, monkeypatch):
    """Of hundreds of generations the last one waits for longer than a lease. Were it lost, nothing would be."""
    line.submit(here=WORDS)
    other = create_collection(line.catalog, name="other", now=time.time(), **line.options)
    accept(
        line.catalog,
        line.objects,
        tenant=ACME,
        collection_id=other.id,
        generation_id=other.generation.id,
        documents=[SubmittedDocument("there", "there.txt", WORDS.encode())],
        now=time.time(),
    )
    line.run(only=[routes.CHUNK, routes.EMBED])
    writer = next(role for role in line.roles if isinstance(role, Writer))
    publish, published = writer._publisher.publish, []

    def slowly(generation_id: GenerationId, **options: Any) -> PublishedManifest:
        with line.catalog.write() as connection:
            connection.execute(sa.update(batches).where(batches.c.state == "running").values(lease_until=1.0))
        for claim in writer._claims.keeper._several():
            writer._claims.keeper._keep(claim)
        ledger.reconcile(line.catalog, now=time.time(), max_attempts=5)
        published.append(generation_id)
        return publish(generation_id, **options)

    monkeypatch.setattr(writer._publisher, "publish", slowly)
    line.run(only=[routes.INDEX])
    assert sorted(published) == sorted([line.collection.generation.id, other.generation.id])
    assert {row.attempts for row in line.rows(batches.c.stage == "index")} == {1}


def test_a_merge_that_is_opened_just_before_its_segments_are_folded_keeps_them(line, monkeypatch):
    def current() -> Manifest:
        with line.catalog.read() as connection:
            return read_manifest(line.objects, connection.scalar(sa.select(generations.c.manifest)))

    def opened(catalog: Catalog, generation_id: GenerationId) -> frozenset[str]:
        found = real(catalog, generation_id)
        details = {"segments": [entry.id for entry in current().segments]}
        ledger.open_merge(catalog, generation_id=generation_id, details=details, now=time.time())
        return found

    for number in range(8):
        line.submit(**{f"d{number}": f"{WORDS} number {number}"})
        line.run()
    before, real = current().segments, ledger.being_merged
    assert len(before) == 8
    monkeypatch.setattr(ledger, "being_merged", opened)
    line.submit(d8=WORDS)
    line.run(only=[routes.CHUNK, routes.EMBED, routes.INDEX])

    assert current().segments[:8] == before
    assert line.states()["d8"] == "indexed"


@pytest.fixture
def unmerged(line, monkeypatch) -> Line:
    """A line with a worn segment, whose writer always died right after publishing."""
    with monkeypatch.context() as patched:
        patched.setattr("penstock.workers.index.plan", lambda *_args: False)
        for numbers, text in ((range(10), "number"), (range(8), "changed")):
            line.submit(**{f"d{number}": f"{WORDS} {text} {number}" for number in numbers})
            line.run()
    assert line.rows(batches.c.stage == "merge") == []
    return line


def test_merges_that_were_missed_are_made_at_a_tick_though_nobody_publishes_again(unmerged):
    unmerged.tick()
    unmerged.run()

    assert unmerged.rows(batches.c.stage == "swap", batches.c.state == "done")
    assert len(set(unmerged.found())) == 10
    merged = len(unmerged.rows())
    unmerged.tick()
    assert len(unmerged.rows()) == merged


def test_a_merge_that_was_given_up_is_tried_again_a_minute_later_and_then_ever_later(unmerged, monkeypatch):
    monkeypatch.setattr(Maintenance, "_build", lambda *_args: 1 / 0)
    unmerged.tick()
    unmerged.run()
    [dead] = unmerged.rows(batches.c.stage == "merge")
    assert (dead.state, dead.attempts) == ("dead", 2)

    unmerged.tick()
    assert unmerged.open_batches() == []
    unmerged.submit(d10=WORDS)  # neither does publishing open it again
    unmerged.run()
    assert unmerged.states()["d10"] == "indexed"
    assert unmerged.rows(batches.c.stage == "merge") == [dead]

    def pass_by(seconds: float) -> None:
        with unmerged.catalog.write() as connection:
            times = {name: batches.c[name] - seconds for name in ("finished_at", "first_attempt_at", "created_at")}
            connection.execute(sa.update(batches).values(times))
        unmerged.tick()

    pass_by(61.0)
    assert [batch.stage for batch in unmerged.open_batches()] == ["merge"]
    unmerged.run()
    pass_by(61.0)
    assert unmerged.open_batches() == []
    pass_by(61.0)
    assert [batch.stage for batch in unmerged.open_batches()] == ["merge"]
    monkeypatch.undo()
    unmerged.run()
    assert len(set(unmerged.found())) == 11


def test_a_dropped_generation_is_not_merged(unmerged):
    with unmerged.catalog.write() as connection:
        connection.execute(sa.update(generations).values(state="dropped"))
    unmerged.tick()
    assert unmerged.open_batches() == []
    with unmerged.catalog.write() as connection:
        connection.execute(sa.update(generations).values(state="building"))
    unmerged.tick()
    assert [batch.stage for batch in unmerged.open_batches()] == ["merge"]


def test_a_tick_looks_at_a_few_generations_and_the_next_one_goes_on(unmerged, monkeypatch):
    monkeypatch.setattr(planning, "LOOKED_AT", 1)
    with unmerged.catalog.write() as connection:  # one that comes first, and cannot be read
        row = connection.execute(sa.select(generations)).one()._asdict()
        connection.execute(
            sa.insert(generations).values(row | {"id": "gen_0", "state": "building", "manifest": "gone"})
        )
    unmerged.tick()
    assert unmerged.open_batches() == []
    unmerged.tick()
    assert [batch.stage for batch in unmerged.open_batches()] == ["merge"]


def test_ticks_that_waited_together_count_as_one(unmerged):
    unmerged.tick()
    with unmerged.catalog.write() as connection:
        assert connection.execute(sa.delete(batches).where(batches.c.stage == "merge")).rowcount == 1
    unmerged.tasks[routes.COLLECT]()

    assert unmerged.open_batches() == []


def test_a_merge_is_held_for_longer_than_other_batches(unmerged, monkeypatch):
    held = []
    monkeypatch.setattr(Maintenance, "_build", lambda *_args: held.extend(unmerged.open_batches()) or 1 / 0)
    unmerged.tick()
    unmerged.run(only=[routes.MERGE])

    assert held[0].lease_until > time.time() + 5 * unmerged.settings.workers.lease_s


def test_a_merge_whose_segments_are_gone_is_dropped(line):
    line.submit(one=WORDS)
    line.run()
    generation_id = line.collection.generation.id
    opened = ledger.open_merge(
        line.catalog, generation_id=generation_id, details={"segments": ["seg_gone"]}, now=time.time()
    )
    line.run()

    [batch] = line.rows(batches.c.id == opened)
    assert batch.state == "dead"
    assert line.found() != []


def test_what_a_crash_left_staged_is_collected_and_what_is_needed_is_kept(line, monkeypatch):
    line.submit(one=WORDS)
    line.run(only=[routes.CHUNK])
    keep_staged(line, count=1)
    line.run(only=[routes.EMBED])
    keep_staged(line, count=2)

    monkeypatch.setattr(Writer, "_forget_staged", lambda *_args: None)  # it died right after the commit
    line.run()
    for name in line.staged():
        age(line, name)
    line.tick()
    assert line.staged() == []
    assert line.found() != []


def test_a_merged_segment_that_waits_for_its_swap_is_not_garbage(line):
    for numbers, text in ((range(20), "number"), (range(15), "changed")):
        line.submit(**{f"d{number}": f"{WORDS} {text} {number}" for number in numbers})
        line.run(only=[routes.CHUNK, routes.EMBED, routes.INDEX])
    line.run(only=[routes.MERGE])
    [swap] = line.rows(batches.c.stage == "swap")
    waiting = [file.name for file in Swap.from_details(swap.details).output.all_files]
    for name in waiting:
        age(line, name)
    line.tick()

    assert all(line.objects.exists(name) for name in waiting)
    line.run()
    assert len(set(line.found())) == 20


def test_documents_that_are_sent_anew_every_week_take_no_more_room_than_the_first_time(line):
    def size() -> tuple[int, ...]:
        with line.catalog.read() as connection:
            counts = [connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in (batches, versions)]
        return *counts, len(list(line.objects.list(paths.packs_prefix(ACME))))

    def pass_a_week() -> None:
        with line.catalog.write() as connection:
            for table in (batches, versions):
                connection.execute(sa.update(table).values(finished_at=table.c.finished_at - KEEP_S - 1))
            passed = {name: manifests.c[name] - KEEP_S - 1 for name in ("created_at", "followed_at")}
            connection.execute(sa.update(manifests).values(passed))
        for info in line.objects.list(paths.packs_prefix(ACME)):
            age(line, info.name)
        line.tick()

    change_retention(line.catalog, tenant=ACME, name="docs", values={"keep_versions": 1})
    sizes = []
    for week in range(3):
        line.submit(one=f"{WORDS} {week}", two=f"{WORDS} two {week}")
        line.run()
        pass_a_week()
        sizes.append(size())

    assert sizes == [(0, 2, 1)] * 3
    assert set(line.found()) == {"one", "two"}

    change_retention(line.catalog, tenant=ACME, name="docs", values={"keep_versions": 2})
    for week in range(2):  # what a version that is kept serves stays whole, with the bytes it was made of
        line.submit(one=f"{WORDS} again {week}", two=f"{WORDS} two again {week}")
        line.run()
        pass_a_week()
        assert size() == (0, 4, 2)


def keep_staged(line: Line, *, count: int) -> None:
    """Collect garbage, with everything staged old enough for it, and check that nothing went."""
    needed = line.staged()
    assert len(needed) == count
    for name in needed:
        age(line, name)
    line.tick()
    assert line.staged() == needed


def age(line: Line, name: str) -> None:
    old = time.time() - 2 * MIN_AGE_S
    os.utime(line.objects.local_path(name), (old, old))


def test_a_rollback_is_carried_out_before_what_waits_to_be_indexed(line):
    line.submit(one=WORDS, two=WORDS)
    line.run()
    line.submit(one="something else altogether", three=WORDS)
    line.run()
    asked = ledger.open_rollback(line.catalog, generation_id=line.collection.generation.id, version=1, now=time.time())
    line.submit(four=WORDS)
    line.run()

    assert line.states() == dict.fromkeys(("one", "two", "four"), "indexed")
    assert set(line.found()) == {"one", "two", "four"}
    assert line.documents()["one"].number == 1
    where = {"tenant": ACME, "generation_id": line.collection.generation.id}
    assert ledger.get_rollback(line.catalog, **where, rollback_id=asked.id).state == "done"


@pytest.mark.parametrize("error", [Unavailable("the bucket does not answer"), OSError(errno.ENOSPC, "No space left")])
def test_a_rollback_waits_for_an_outage_however_long_it_takes(line, monkeypatch, error):
    line.submit(one=WORDS)
    line.run()
    line.submit(one="something else altogether")
    line.run()
    objects = line.roles[2]._components.objects
    real, failures = objects.put, [error] * (2 * line.settings.workers.max_attempts)

    def put(*args):
        if failures:
            raise failures.pop()
        real(*args)

    monkeypatch.setattr(objects, "put", put)
    asked = ledger.open_rollback(line.catalog, generation_id=line.collection.generation.id, version=1, now=time.time())
    line.run()  # leases last longer than this waits

    where = {"tenant": ACME, "generation_id": line.collection.generation.id}
    assert ledger.get_rollback(line.catalog, **where, rollback_id=asked.id).state == "done"
    assert line.documents()["one"].number == 1


def test_a_rollback_that_cannot_be_fails_with_its_reason_and_the_rest_goes_on(line):
    line.submit(one=WORDS)
    line.run()
    line.submit(one="something else altogether")
    line.run()
    with line.catalog.write() as connection:
        connection.execute(sa.delete(versions).where(versions.c.state == "superseded"))
    asked = ledger.open_rollback(line.catalog, generation_id=line.collection.generation.id, version=1, now=time.time())
    line.submit(two=WORDS)
    line.run()

    where = {"tenant": ACME, "generation_id": line.collection.generation.id}
    failed = ledger.get_rollback(line.catalog, **where, rollback_id=asked.id)
    assert failed.state == "failed"
    assert "is not in the catalog any more" in failed.error
    assert set(line.found()) == {"one", "two"}


def test_many_that_expired_leave_at_one_tick_and_let_others_be_published_in_between(line, monkeypatch):
    monkeypatch.setattr("penstock.storage.ledger.expiry.AT_ONCE", 2)
    place = {"collection_id": line.collection.id, "generation_id": line.collection.generation.id}
    ended = time.time() - 1
    short = [SubmittedDocument(f"s{i}", f"s{i}.txt", WORDS.encode(), expires_at=ended) for i in range(7)]
    accept(line.catalog, line.objects, tenant=ACME, **place, documents=short, now=time.time())
    line.run()
    line.submit(late=WORDS)
    line.run(only=[routes.CHUNK, routes.EMBED])
    assert ledger.open_expiries(line.catalog, now=time.time()) == 1
    line.run()
    assert line.states() == {"late": "indexed"}
    with line.catalog.read() as connection:
        at = connection.scalar(sa.select(versions.c.indexed_version).where(versions.c.state == "indexed"))
    last = generation_info(line.catalog, line.collection.generation.id).version
    assert (at, last) == (3, 6)  # the documents, a slice and the late one, and the other slices


def test_what_expired_can_be_rolled_back_to_as_long_as_a_version_that_serves_it_is_kept(line):
    place = {"collection_id": line.collection.id, "generation_id": line.collection.generation.id}
    short = SubmittedDocument("short", "short.txt", WORDS.encode(), expires_at=time.time() - 1)
    accept(line.catalog, line.objects, tenant=ACME, **place, documents=[short], now=time.time())
    line.submit(other=WORDS)
    line.run()
    generation_id = line.collection.generation.id
    with_both = generation_info(line.catalog, generation_id).version  # a slow machine publishes each by itself
    assert ledger.open_expiries(line.catalog, now=time.time()) == 1
    line.run()
    assert set(line.states()) == {"other"}

    ledger.prune(line.catalog, now=time.time() + KEEP_S + 60)
    asked = ledger.open_rollback(line.catalog, generation_id=generation_id, version=with_both, now=time.time())
    line.run()
    found = ledger.get_rollback(line.catalog, tenant=ACME, generation_id=generation_id, rollback_id=asked.id)
    assert (found.state, found.error) == ("done", None)
    assert line.states() == {"other": "indexed", "short": "indexed"}
