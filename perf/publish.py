"""What does it cost to publish a little into a large index, and how often is a vector inserted while an index grows?

The first question is asked of an index of a million rows and one of a thousand, in turns: 100 chunks of new documents
each time, files and catalog on this disk. The second of an index that grows by the engine's own plans, publish by
publish, with every merge that is due.

Doubts: the growing index has few dimensions, so that it takes minutes: how often a row is inserted depends on counts
alone. fsync costs what it costs on this disk.
"""

import shutil
import tempfile
import time
from collections.abc import Collection
from pathlib import Path

import indexes
import numpy as np
import report
import vectors as made_up

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import generation_info
from penstock.storage.ids import GenerationId
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import Swap, build_merge
from penstock.storage.publishing.planning import plan_merge
from penstock.storage.publishing.publisher import Publisher, acquire_lease
from penstock.storage.segments.manifests import Manifest, read_manifest
from penstock.storage.segments.segment import open_segment

CHUNKS = 100
TURNS = 15
SMALL_ROWS = 1_000
GROWN_DIMENSIONS = 32


class Writer:
    """A writer of one index, whose files it may change."""

    def __init__(
        self, catalog: Catalog, objects: LocalObjects, generation_id: GenerationId, *, dimensions: int
    ) -> None:
        self.catalog, self.objects, self.generation_id = catalog, objects, generation_id
        self._dimensions = dimensions
        self._publisher = Publisher(catalog, objects)
        epoch = acquire_lease(catalog, shard=0, owner="perf-writer", ttl_s=86_400, now=time.time() + 2 * 86_400)
        assert epoch is not None
        self._epoch = epoch
        self._made = 0

    def publish(self, count: int, *, taken: Collection[str] = ()) -> float:
        """Publish new documents, while ``taken`` is being merged, and return the seconds that took."""
        numbers = range(self._made, self._made + count)
        self._made += count
        vectors = np.concatenate(list(made_up.sample(count, dimensions=self._dimensions, seed=self._made)))
        shares = {"uniform": np.random.default_rng(self._made).random(self._made)}
        rows = indexes.rows_of(numbers, shares=shares, prefix="new")
        began = time.perf_counter()
        given = {"additions": rows, "vectors": vectors, "taken": taken}
        self._publisher.publish(self.generation_id, epoch=self._epoch, shard=0, **given)
        return time.perf_counter() - began

    def merge(self, *, threads: int) -> bool:
        """Build and swap in the merge that is due; returns whether one was."""
        manifest = self.manifest()
        chosen = plan_merge(manifest)
        if chosen is None:
            return False
        output = build_merge(self.objects, manifest, chosen, threads=threads)
        self.swap(Swap([entry.id for entry in chosen], output))
        for file in (file for entry in chosen for file in entry.all_files):
            self.objects.delete(file.name)
        return True

    def swap(self, swap: Swap) -> None:
        self._publisher.publish(self.generation_id, epoch=self._epoch, shard=0, swap=swap)

    def manifest(self) -> Manifest:
        name = generation_info(self.catalog, self.generation_id).manifest
        assert name is not None
        return read_manifest(self.objects, name)

    def insertions(self) -> int:
        """Return how many insertions into graphs the rows of the current version have had."""
        entries = self.manifest().segments
        opened = [open_segment(self.objects, entry, dimensions=self._dimensions) for entry in entries]
        return sum(int(segment.sections.meta["graph_insertions"]) for segment in opened)


def main() -> None:
    flags = report.parser("What does a small publish cost, and how often is a vector inserted?")
    flags.add_argument("--vectors", type=int, default=1_000_000, help="rows of the large index, and of the grown one")
    given = flags.parse_args()
    count = min(given.vectors, indexes.QUICK_ROWS) if given.quick else given.vectors
    large_s, small_s = _small_publishes(count)
    grown = count
    insertions, segments, took_s = _grow(grown, quiet=given.json)
    conditions = {
        **report.conditions(["hnswlib"]),
        "vectors": count,
        "grown to": grown,
        "grown dimensions": GROWN_DIMENSIONS,
    }
    answer = report.Report("publish", conditions)
    figures = {
        "large_over_small": (float(np.median(large_s) / np.median(small_s)), "p50 / p50", "at most 2"),
        "publish_100_ms_large": (1e3 * float(np.median(large_s)), "ms", None),
        "publish_100_ms_small": (1e3 * float(np.median(small_s)), "ms", None),
        "graph_insertions_per_vector": (insertions / grown, "insertions", "at most 2.5"),
        "segments": (segments, "after growing", None),
        "grown_in_s": (took_s, "s", None),
    }
    answer.figures = {name: report.Figure(*figure) for name, figure in figures.items()}
    report.show(answer, as_json=given.json)


def _small_publishes(count: int) -> tuple[list[float], list[float]]:
    """Publish into copies of a large and of a small index, in turns; merges wait, as they do behind a long one."""
    with tempfile.TemporaryDirectory(dir=indexes.CACHE) as folder:
        writers = [copied(Path(folder) / str(rows), rows) for rows in (count, SMALL_ROWS)]
        times: list[list[float]] = [[], []]
        for turn in range(TURNS):
            for writer, own in zip(writers, times, strict=True):
                took_s = writer.publish(CHUNKS)
                if turn:
                    own.append(took_s)
    return times[0], times[1]


def copied(folder: Path, count: int) -> Writer:
    """Return a writer of a copy of the index of ``count`` rows. The files are shared: none is ever edited."""
    index = indexes.built(count)
    source = index.objects.root.parent
    shutil.copytree(source / "objects", folder / "objects", copy_function=lambda a, b: Path(b).hardlink_to(a))
    shutil.copy(source / "catalog.db", folder / "catalog.db")
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
    return Writer(catalog, LocalObjects(folder / "objects"), index.generation.id, dimensions=indexes.DIMENSIONS)


def _grow(count: int, *, quiet: bool) -> tuple[int, int, float]:
    """Grow an index in a thousand publishes with all merges; return insertions, segments and seconds."""
    with tempfile.TemporaryDirectory(dir=indexes.CACHE) as folder, report.progress(quiet=quiet) as bar:
        catalog, objects, generation = indexes.empty(Path(folder), dimensions=GROWN_DIMENSIONS)
        writer = Writer(catalog, objects, generation.id, dimensions=GROWN_DIMENSIONS)
        began = time.perf_counter()
        for _ in bar.track(range(1_000), description="growing"):
            writer.publish(count // 1_000)
            while writer.merge(threads=2):
                pass
        return writer.insertions(), len(writer.manifest().segments), time.perf_counter() - began


if __name__ == "__main__":
    main()
