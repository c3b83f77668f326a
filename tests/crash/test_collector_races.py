"""No version that is kept ever lacks a file, however publishers, rollbacks, forks, mergers and collectors take turns.

Everybody is a thread that stops before each operation on the store and around each transaction; who goes on is drawn.
Their clocks are off by hours, in both directions, and each may be left standing for as long as the rest of the run.
"""

import random
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog import copies
from penstock.storage.catalog.collections import delete_collection, get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.catalog.manifests import hold_manifest, list_manifests
from penstock.storage.catalog.references import Reference
from penstock.storage.catalog.retention import Retention
from penstock.storage.catalog.tables import batches, generations, manifests
from penstock.storage.collecting import collect_generations
from penstock.storage.errors import Conflict, Damaged, NotKept, Unavailable
from penstock.storage.ids import BatchId, GenerationId
from penstock.storage.ledger.merges import drop_open_merges
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.publishing.leases import acquire_lease
from penstock.storage.publishing.merging import build_merge
from penstock.storage.publishing.publisher import Publisher
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.search.reader_leases import ReaderLeases
from penstock.storage.search.versions import open_snapshot
from penstock.storage.segments.manifests import Swap, read_manifest

from ..memory_objects import MemoryObjects
from ..postgres_server import new_database
from ..storage_samples import (
    GENERATION,
    TENANT,
    InterceptedObjects,
    open_catalog,
    rows_of,
    unit_vectors,
)

HOUR = 3_600.0
BLOCKED_S = 0.02  # who does not stop again within this time waits for a lock of the database
STEPS = 3_000
DYING = 0.1  # share of the collectors' transactions that fail after everything was deleted
COUNTED = ("published", "merged", "rolled back", "forked", "collected", "died", "read", "fenced", "refused", "leased")


class Over(BaseException):
    """Raised in whoever is still standing when the run ends."""


class Turns:
    """Lets one thread go on at a time, as far as its next stop."""

    def __init__(self, chance: random.Random, *, blocked_s: float) -> None:
        self.chance = chance
        self._blocked_s = blocked_s
        self._changed = threading.Condition()
        self._standing: dict[str, bool] = {}  # by actor: may go on
        self._stops: Counter[str] = Counter()
        self._threads: dict[str, threading.Thread] = {}
        self._asleep_until: dict[str, int] = {}
        self._wants: set[str] = set()  # who stands before a transaction, where only one at a time may write
        self._writer: str | None = None
        self._over = False
        self.failures: list[BaseException] = []

    def add(self, name: str, act: Callable[[], None]) -> None:
        def run() -> None:
            try:
                self.stop()
                while True:
                    act()
                    self.stop()
            except Over:
                pass
            except BaseException as error:  # noqa: BLE001 told by the test
                traceback.print_exc()
                self.failures.append(error)
            with self._changed:
                self._standing.pop(name, None)
                self._changed.notify_all()

        self._threads[name] = threading.Thread(target=run, name=name)

    def stop(self) -> None:
        """Stand still until it is this thread's turn. Others than the actors pass."""
        name = threading.current_thread().name
        if name not in self._threads:
            return
        with self._changed:
            self._standing[name] = False
            self._stops[name] += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._standing[name] or self._over)
            if self._over:
                raise Over
            del self._standing[name]

    @contextmanager
    def writing(self, *, alone: bool) -> Iterator[None]:
        """Stand before a transaction, and hold it for the block; ``alone``: while another does, it is nobody's turn."""
        name = threading.current_thread().name
        if alone and name in self._threads:
            self._wants.add(name)
        self.stop()
        self._wants.discard(name)
        self._writer = name
        try:
            yield
        finally:
            self._writer = None

    def play(self, steps: int, *, check: Callable[[], None]) -> None:
        for thread in self._threads.values():
            thread.start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: len(self._standing) == len(self._threads))
            for step in range(steps):
                self._turn(step)
                assert not self.failures, self.failures
                check()
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()
            for thread in self._threads.values():
                thread.join()

    def _turn(self, step: int) -> None:
        with self._changed:
            self._changed.wait_for(self._may_go)
            awake = [name for name in self._may_go() if self._asleep_until.get(name, 0) <= step]
            name = self.chance.choice(awake or self._may_go())
            self._standing[name] = True
            self._changed.notify_all()
            stops = self._stops[name]
            self._changed.wait_for(lambda: self._stops[name] > stops or self.failures, timeout=self._blocked_s)
            if self.chance.random() < 0.05:  # not for long in a transaction: the server would end it
                longest = (5,) if name == self._writer else (10, 50, 200, STEPS)
                self._asleep_until[name] = step + self.chance.choice(longest)

    def _may_go(self) -> list[str]:
        return sorted(name for name in self._standing if not (name in self._wants and self._writer))


class Play:
    """One run: the true store, and what every actor sees of it, each with its own clock."""

    def __init__(self, folder: Path, catalog: Catalog, seed: int) -> None:
        self.chance = random.Random(seed)
        self.one_writer = catalog.dialect == "sqlite"
        self.turns = Turns(self.chance, blocked_s=10.0 if self.one_writer else BLOCKED_S)
        self.now = 1_000_000.0
        self.catalog = catalog
        self.memory = MemoryObjects(clock=self.clock(skew=self.drawn_skew()))
        self.objects = InterceptedObjects(self.memory, lambda *_: self.turns.stop())
        self.contents: dict[str, dict[str, list[str]]] = {}  # by manifest: documents and their texts
        self.counts = dict.fromkeys(COUNTED, 0)
        self._write = catalog.write
        catalog.write = self.write  # type: ignore[method-assign]

    def drawn_skew(self) -> float:
        return self.chance.choice((0.0, -9 * HOUR, -HOUR, HOUR, 9 * HOUR))

    def later(self) -> float:
        """A time at which every lease is over, so that nobody is spared a rival."""
        self.now += HOUR
        return self.now + 1e9

    def clock(self, *, skew: float) -> Callable[[], float]:
        def read() -> float:
            self.now += self.chance.choice((0.001, 1.0, 600.0))
            return self.now + skew

        return read

    @contextmanager
    def write(self, what: str = "catalog") -> Iterator[sa.Connection]:
        with self.turns.writing(alone=self.one_writer), self._write(what) as connection:
            self.turns.stop()
            yield connection
            self.turns.stop()
            if what == "collect_generation" and self.chance.random() < DYING:
                raise Unavailable("it dies with its deletes done")
        self.turns.stop()

    def publisher(self, owner: str) -> Callable[[], None]:
        clock = self.clock(skew=self.drawn_skew())
        publisher = Publisher(self.catalog, self.objects, clock=clock)

        def publish() -> None:
            epoch = acquire_lease(self.catalog, shard=0, owner=owner, ttl_s=1, now=self.later())
            if epoch is None:  # it stood before it asked
                return
            given = {f"d{self.chance.randrange(6)}": [f"text {self.chance.random()}"] for _ in range(2)}
            gone = [f"d{self.chance.randrange(6)}"]
            claim = ledger.claim_swap(
                self.catalog, shard=0, owner=owner, lease_s=1.0, now=self.later(), max_attempts=1_000
            )
            swap = Swap.from_details(claim.details) if claim else None

            def note(connection: sa.Connection, published) -> None:
                if claim:
                    ledger.finish_swap(connection, claim, now=self.now)

            try:
                publisher.publish(
                    GENERATION,
                    epoch=epoch,
                    shard=0,
                    additions=rows_of(given),
                    vectors=unit_vectors(len(given)),
                    removed_document_ids=gone,
                    swap=swap,
                    in_transaction=note,
                )
                self.counts["published"] += 1
                self.counts["merged"] += swap is not None
            except Conflict as error:
                self.counts["fenced"] += 1
                if claim and "drop it" in str(error):
                    self.drop(claim, error)

        return publish

    def roller(self) -> Callable[[], None]:
        publisher = Publisher(self.catalog, self.objects, clock=self.clock(skew=self.drawn_skew()))

        def roll_back() -> None:
            epoch = acquire_lease(self.catalog, shard=0, owner="roller", ttl_s=1, now=self.later())
            kept = self.kept(GENERATION)
            if epoch is None or not kept:
                return
            version = self.chance.choice(kept)

            def hold(connection: sa.Connection, _published) -> None:
                hold_manifest(connection, GENERATION, version)
                drop_open_merges(connection, GENERATION, error="rolled back", now=self.now)

            try:
                rollback = plan_rollback(self.catalog, self.objects, GENERATION, version=version)
                publisher.publish(GENERATION, epoch=epoch, shard=0, rollback=rollback, in_transaction=hold)
                self.counts["rolled back"] += 1
            except (Conflict, NotKept):
                self.counts["refused"] += 1

        return roll_back

    def forker(self) -> Callable[[], None]:
        """Make forks, of forks too, and delete them again."""
        clock, made = self.clock(skew=self.drawn_skew()), []

        def fork_or_delete() -> None:
            if made and self.chance.random() < 0.4:
                delete_collection(self.catalog, tenant=TENANT, name=made.pop(self.chance.randrange(len(made))))
                return
            parent = get_collection(self.catalog, tenant=TENANT, name=self.chance.choice([str(GENERATION), *made]))
            kept, name = self.kept(parent.generation.id), f"fork-{self.chance.randrange(1 << 60)}"
            if not kept:
                return
            wanted = {"parent": parent, "reference": Reference(version=self.chance.choice(kept)), "name": name}
            try:
                fork_collection(self.catalog, self.objects, clock=clock, **wanted)
                made.append(name)
                self.counts["forked"] += 1
            except (Conflict, NotKept):
                self.counts["refused"] += 1

        return fork_or_delete

    def kept(self, generation_id: GenerationId) -> list[int]:
        with self.catalog.read() as connection:
            return [one.version for one in list_manifests(connection, generation_id, limit=100)]

    def merger(self) -> Callable[[], None]:
        def merge() -> None:
            ledger.open_merge(self.catalog, generation_id=GENERATION, details={"segments": ["s1"]}, now=self.now)
            with self.catalog.read() as connection:
                mine = sa.and_(batches.c.stage == "merge", batches.c.state.in_(("ready", "running")))
                found = connection.scalar(sa.select(batches.c.id).where(mine))
            if found is None:
                return
            claim = ledger.claim(
                self.catalog, BatchId(found), owner="merger", lease_s=1.0, now=self.later(), max_attempts=1_000
            )
            current = generation_info(self.catalog, GENERATION).manifest
            if claim is None or current is None:
                return
            try:
                manifest = read_manifest(self.objects, current)
                inputs = manifest.segments[: self.chance.randrange(1, 4)]
                output = build_merge(self.objects, manifest, inputs)
                swap = Swap([entry.id for entry in inputs], output)
                ledger.finish_merge(self.catalog, self.objects, claim, details=swap.to_details(), now=self.now)
            except (Conflict, Damaged) as error:  # it stood so long that what it read was no longer kept
                self.counts["refused"] += 1
                self.drop(claim, error)

        return merge

    def drop(self, claim: ledger.Claim, error: Exception) -> None:
        try:
            ledger.drop_merge(self.catalog, claim, error=str(error), now=self.now)
        except Conflict:
            self.counts["fenced"] += 1

    def collector(self) -> Callable[[], None]:
        clock = self.clock(skew=self.drawn_skew())

        def collect() -> None:
            min_age_s = self.chance.choice((0.0, HOUR))
            retention = Retention(keep_versions=self.chance.choice((1, 2, 4)), keep_s=0.0)
            options = {"retention": retention, "min_age_s": min_age_s}
            try:
                collected = collect_generations(self.catalog, self.objects, tenant=TENANT, now=clock(), **options)
                self.counts["collected"] += collected.objects
            except Unavailable:
                self.counts["died"] += 1

        return collect

    def reader(self) -> Callable[[], None]:
        def read() -> None:
            generation = generation_info(self.catalog, GENERATION)
            try:
                snapshot = open_snapshot(self.objects, generation)
            except Damaged:  # it stood until that version was over; it looks again
                assert generation_info(self.catalog, GENERATION).manifest != generation.manifest
                self.counts["refused"] += 1
                return
            self.counts["read"] += 1
            if snapshot.manifest is not None:
                hits = snapshot.search(unit_vectors(1)[0], k=100, now=0.0)
                assert len(hits) == snapshot.manifest.live_chunks

        return read

    def past_reader(self) -> Callable[[], None]:
        """Reads versions that are over in a moment, under a lease: then not one file may be missing."""
        leases = ReaderLeases(self.catalog, renew_s=1e9)  # nobody is taken for dead here

        def read() -> None:
            with self.catalog.read() as connection:
                mine = manifests.c.generation_id == GENERATION
                kept = connection.execute(sa.select(manifests.c.version, manifests.c.name).where(mine)).all()
            if not kept:
                return
            version, name = self.chance.choice(kept)
            try:
                with leases.using((GENERATION, version), opening=True):
                    generation = replace(generation_info(self.catalog, GENERATION), version=version, manifest=name)
                    snapshot = open_snapshot(self.objects, generation)
                    assert len(snapshot.search(unit_vectors(1)[0], k=100, now=0.0)) == snapshot.chunk_count
                    self.counts["leased"] += 1
            except NotKept:
                self.counts["refused"] += 1
            leases.renew()

        return read

    def check(self) -> None:
        """Every file of every version that is kept, and of every merge that waits, is there."""
        with self.catalog.read() as connection:
            kept = connection.scalars(sa.select(manifests.c.name)).all()
            current = connection.scalar(sa.select(generations.c.manifest).where(generations.c.id == GENERATION))
            waiting = sa.select(batches.c.details).where(batches.c.stage == "swap", batches.c.state != "done")
            swaps = connection.scalars(waiting.where(batches.c.state != "dead")).all()
        assert current is None or current in kept
        needed = {file for name in kept for file in read_manifest(self.memory, name).file_names}
        needed |= {file.name for details in swaps for file in Swap.from_details(details).output.all_files}
        assert self.memory.missing(needed) == []


def played(folder: Path, catalog: Catalog, seed: int, *, steps: int) -> dict[str, int]:
    print(f"seed {seed}")
    play = Play(folder, catalog, seed)
    for name, act in {
        "publisher": play.publisher("publisher"),
        "rival": play.publisher("rival"),
        "merger": play.merger(),
        "roller": play.roller(),
        "forker": play.forker(),
        "collector": play.collector(),
        "other collector": play.collector(),
        "reader": play.reader(),
        "past reader": play.past_reader(),
    }.items():
        play.turns.add(name, act)
    play.turns.play(steps, check=play.check)
    print(play.counts)
    return play.counts


@pytest.fixture(autouse=True)
def _no_documents(monkeypatch):
    """What is played here is played with files: the catalog knows no document that a fork could copy."""
    monkeypatch.setattr(copies, "_copy_versions", lambda *_: None)


SEEDS = pytest.mark.parametrize("seed", [1, random.randrange(1 << 30)], ids=lambda _: "")


@SEEDS
def test_no_file_of_a_version_that_is_kept_is_ever_missing(tmp_path, seed):
    catalog = open_catalog(tmp_path)

    counts = played(tmp_path, catalog, seed, steps=STEPS)

    assert counts["published"] > 0
    assert counts["collected"] > 0
    catalog.dispose()


@SEEDS
def test_nor_is_it_where_transactions_run_side_by_side(tmp_path, postgres_url, seed):
    with new_database(postgres_url) as url:
        catalog = open_catalog(tmp_path, url=url)
        counts = played(tmp_path, catalog, seed, steps=STEPS // 5)
        assert sum(counts.values()) > 10  # who published, and how often, is drawn
        catalog.dispose()
