"""Do searches notice that their index is merged, swapped and published into?

One thread searches a generation of a million rows through the reader's cache, as a query process does. Another process
publishes a little, ten times a second at most, and a third merges the large graph with what came, until it is swapped
in. What is published meanwhile a fourth merges, when it is enough for a graph. Every two seconds these are all stopped
where they are for as long, and a copy is searched into which nothing was published: that is *at rest*.

Doubts: a merge reads and writes gigabytes, so this measures the disk and the memory bus too, and what the kernel has
still to write while they are stopped; with two cores the searching thread and everything else have one each. The ratio
is of all searches of a round, and the median of several rounds, each of them told.
"""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import indexes
import numpy as np
import publish
import report
import vectors as made_up
from numpy.typing import NDArray

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.ids import GenerationId, SegmentId
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import Swap, build_merge
from penstock.storage.publishing.planning import plan_merge
from penstock.storage.search import planner
from penstock.storage.search.snapshots import SnapshotCache
from penstock.storage.search.versions import open_snapshot
from penstock.storage.segments.manifests import SegmentEntry, read_manifest
from penstock.workers.run import PLANS

K, EF = 10, 64
TURN_S = 2.0  # as long one thing is searched, then the other: a shared machine is slower by a third for seconds
BEFORE_S = 15.0
SETTLE_S = 20.0  # what the round before wrote and deleted, gigabytes, keeps the disk and the kernel busy for a while
TIMEOUT_S = 600.0
AFTER_S = 6.0  # half of it in a turn of rest, perhaps


@dataclass(frozen=True)
class Publishes:
    """How often something is published, and how much."""

    every_s: float
    chunks: int


@dataclass
class Searches:
    """Milliseconds of each search, how many failed, and the versions that were seen."""

    ms: list[float] = field(default_factory=list)
    failed: int = 0
    versions: set[int] = field(default_factory=set)

    def p99(self) -> float:
        return float(np.quantile(self.ms, 0.99))


@dataclass(frozen=True)
class Round:
    """What was measured of one copy of the index. ``swapped``: how many merges were."""

    open_ms: float
    before: Searches
    rest: Searches
    busy: Searches
    swapped: int

    @property
    def p99_ratio(self) -> float:
        return self.busy.p99() / self.rest.p99()


def main() -> None:
    flags = report.parser("Do searches notice that their index is merged, swapped and published into?")
    flags.add_argument("--vectors", type=int, default=1_000_000, help="rows of the index")
    flags.add_argument("--every", type=float, default=0.1, metavar="SECONDS", help="between two publishes")
    flags.add_argument("--chunks", type=int, default=5, help="of each publish")
    flags.add_argument("--rounds", type=int, default=3, help="whole rounds, at rest and merging")
    given = flags.parse_args()
    count = min(given.vectors, indexes.QUICK_ROWS) if given.quick else given.vectors
    costs = planner.prepare()
    indexes.built(count)
    publishes = Publishes(given.every, given.chunks)
    rounds: list[Round] = []
    for _ in range(1 if given.quick else given.rounds):
        if rounds:
            os.sync()
            time.sleep(SETTLE_S)
        rounds.append(_round(count, costs, publishes))
    answer = report.Report(
        "reload",
        {
            **report.conditions(["hnswlib"]),
            "vectors": count,
            "seconds between publishes": given.every,
            "chunks published": given.chunks,
            "k": K,
            "rounds": ", ".join(f"{each.p99_ratio:.2f}" for each in rounds),
            "over the p99 before": ", ".join(f"{each.busy.p99() / each.before.p99():.2f}" for each in rounds),
        },
    )
    between = sorted(rounds, key=lambda each: each.p99_ratio)[len(rounds) // 2]
    rest, busy = between.rest, between.busy
    figures = {
        "p99_ratio": (between.p99_ratio, "merging / at rest", "at most 1.5"),
        "open_ms": (float(np.median([each.open_ms for each in rounds])), "ms, warm", "under 50"),
        "p99_ms_before": (between.before.p99(), "ms, before anything was merged", None),
        "p99_ms_at_rest": (rest.p99(), "ms", None),
        "p99_ms_merging": (busy.p99(), "ms", None),
        "p50_ratio": (float(np.median(busy.ms) / np.median(rest.ms)), "merging / at rest", None),
        "slowest_ms_merging": (max(max(each.busy.ms) for each in rounds), "ms", None),
        "failed": (sum(each.busy.failed for each in rounds), "searches", "0"),
        "searches": (len(busy.ms), "while merging", None),
        "versions": (len(busy.versions), "served while merging", None),
        "swapped": (min(each.swapped for each in rounds), "merges", "at least 1"),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=given.json)


def _round(count: int, costs: planner.Costs, publishes: Publishes) -> Round:
    with tempfile.TemporaryDirectory(dir=indexes.CACHE) as folder, ExitStack() as closing:
        folders = [Path(folder) / name for name in ("busy", "resting")]
        writers = [publish.copied(each, count) for each in folders]
        open_ms = _open_ms(writers[0], costs)
        searchers = []
        for writer, poll_s in zip(writers, (0.2, 3_600.0), strict=True):  # a query process polls, at rest too: one does
            cache = SnapshotCache(writer.catalog, writer.objects, poll_s=poll_s, capacity_bytes=16 << 30)
            closing.callback(cache.close)
            cache.prepare()
            searchers.append(Searcher(cache, writer.generation_id))
            searchers[-1].search(for_s=3.0, told=Searches())
        before = Searches()
        searchers[1].search(for_s=BEFORE_S, told=before)
        rest, busy, swapped = _in_turns(*searchers, folder=folders[0], publishes=publishes)
    return Round(open_ms, before, rest, busy, swapped)


@dataclass
class Searcher:
    """One thread of a query process."""

    cache: SnapshotCache
    generation_id: GenerationId
    queries: NDArray[np.float32] = field(
        default_factory=lambda: made_up.queries(1_000, dimensions=indexes.DIMENSIONS), repr=False
    )

    def search(self, *, for_s: float, told: Searches) -> None:
        """Search without a pause for so long."""
        ends_at = time.perf_counter() + for_s
        while (began := time.perf_counter()) < ends_at:
            try:
                with self.cache.get(indexes.TENANT, self.generation_id) as snapshot:
                    snapshot.search(self.queries[len(told.ms) % len(self.queries)], k=K, ef=EF, now=2_000.0)
                    told.versions.add(snapshot.version)
            except Exception as error:  # noqa: BLE001  counted, whatever it is
                report.errors.print(f"a search failed: {error}")
                told.failed += 1
            told.ms.append(1e3 * (time.perf_counter() - began))


def _open_ms(writer: publish.Writer, costs: planner.Costs) -> float:
    times = []
    for _ in range(7):
        began = time.perf_counter()
        open_snapshot(writer.objects, generation_info(writer.catalog, writer.generation_id), costs=costs)
        times.append(1e3 * (time.perf_counter() - began))
    return float(np.median(times))


def _in_turns(
    busy: Searcher, resting: Searcher, *, folder: Path, publishes: Publishes
) -> tuple[Searches, Searches, int]:
    """Return the searches at rest and those while merging, and how many merges were swapped in."""
    context = multiprocessing.get_context("spawn")
    merged, done = context.Event(), context.Event()
    beside = context.Value("i", 0)
    writing = context.Process(target=_write, args=[folder, busy.generation_id, publishes, merged, done, beside])
    at_rest, merging = Searches(), Searches()
    writing.start()
    assert writing.pid is not None
    try:
        ends_at = time.perf_counter() + TIMEOUT_S
        while not done.is_set() and time.perf_counter() < ends_at:
            busy.search(for_s=TURN_S, told=merging)
            with _stopped(writing.pid):
                resting.search(for_s=TURN_S, told=at_rest)
        return at_rest, merging, int(merged.is_set()) + beside.value
    finally:
        done.set()
        writing.join()


@contextmanager
def _stopped(group: int) -> Iterator[None]:
    """Stop the processes of a group where they are, for the time of the block."""
    with suppress(ProcessLookupError):  # it is over, or did not begin
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)


def _write(
    folder: Path, generation_id: GenerationId, publishes: Publishes, merged: Event, done: Event, swapped: object
) -> None:
    """Publish now and then, and swap in each merge that is built; a while after that of the large graph, stop."""
    os.setpgid(0, 0)  # so that it is stopped with all that it starts
    catalog, objects = Catalog.open(f"sqlite:///{folder / 'catalog.db'}"), LocalObjects(folder / "objects")
    writer = publish.Writer(catalog, objects, generation_id, dimensions=indexes.DIMENSIONS)
    writer.publish(publishes.chunks)
    large = Building.begun(folder, generation_id, writer.manifest().segments)
    beside: Building | None = None
    ends_at = None
    while not done.is_set() and (ends_at is None or time.perf_counter() < ends_at):
        began = time.perf_counter()
        taken = [segment for each in (large, beside) if each for segment in each.inputs]
        writer.publish(publishes.chunks, taken=taken)
        if ends_at is None and large.is_over():
            writer.swap(large.result())
            merged.set()
            ends_at, large = time.perf_counter() + AFTER_S, None
        if beside is not None and beside.is_over():
            writer.swap(beside.result())
            swapped.value += 1  # type: ignore[attr-defined]
            beside = None
        if beside is None and (chosen := plan_merge(writer.manifest(), taken=large.inputs if large else ())):
            beside = Building.begun(folder, generation_id, chosen)
        time.sleep(max(0.0, publishes.every_s - (time.perf_counter() - began)))
    done.set()
    if beside is not None:
        beside.result()


@dataclass
class Building:
    """A merge in a process of its own, as the maintenance role has them."""

    inputs: list[SegmentId]
    process: Any
    receiving: Any

    @classmethod
    def begun(cls, folder: Path, generation_id: GenerationId, segments: Sequence[SegmentEntry]) -> "Building":
        context = multiprocessing.get_context("spawn")
        inputs = [entry.id for entry in segments]
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_build, args=[folder, generation_id, inputs, sending])
        process.start()
        return cls(inputs, process, receiving)

    def is_over(self) -> bool:
        return bool(self.receiving.poll())

    def result(self) -> Swap:
        swap = Swap.from_details(self.receiving.recv())
        self.process.join()
        return swap


def _build(folder: Path, generation_id: GenerationId, inputs: list[SegmentId], sending: Any) -> None:
    os.nice(PLANS["maintenance"].niceness)
    catalog, objects = Catalog.open(f"sqlite:///{folder / 'catalog.db'}"), LocalObjects(folder / "objects")
    name = generation_info(catalog, generation_id).manifest
    assert name is not None
    manifest = read_manifest(objects, name)
    output = build_merge(objects, manifest, [entry for entry in manifest.segments if entry.id in inputs], threads=1)
    sending.send(Swap(inputs, output).to_details())


if __name__ == "__main__":
    main()
