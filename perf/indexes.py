"""A large index of made-up vectors, built once by the engine itself, and kept in perf/.cache.

One document a row, with the metadata that `filters.py` asks for: ``uniform`` is independent of the vectors, ``half``
and ``cluster`` are the shares of rows that lie further along a direction, and nearer to a passage. Building a million
rows takes ten minutes on two cores, and 6 GB of disk.
"""

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import report
import vectors as made_up
from numpy.typing import NDArray
from sqlalchemy import select

from penstock.storage.catalog import tables
from penstock.storage.catalog.collections import create_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import GenerationInfo, generation_info
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ids import GenerationId, TenantId
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.merging import Swap, build_merge
from penstock.storage.publishing.publisher import Publisher, acquire_lease
from penstock.storage.search import planner
from penstock.storage.search.versions import Snapshot, open_snapshot
from penstock.storage.segments.manifests import INT8, read_manifest
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows

CACHE = Path(__file__).parent / ".cache"
FORMAT = 5
DIMENSIONS = 384
TENANT = TenantId("perf")
PUBLISHED_ROWS = 50_000
QUICK_ROWS = 50_000  # of a run with --quick


@dataclass(frozen=True)
class Index:
    """An index on disk. ``vectors`` f32[n, d] are its rows, mapped from a file of their own."""

    catalog: Catalog
    objects: LocalObjects
    generation: GenerationInfo
    vectors: NDArray[np.float32]

    def open(self, *, costs: planner.Costs = planner.TYPICAL) -> Snapshot:
        return open_snapshot(self.objects, self.generation, costs=costs)

    @property
    def graph_path(self) -> Path:
        """The file that hnswlib can load."""
        assert self.generation.manifest is not None
        entry = read_manifest(self.objects, self.generation.manifest).segments[0]
        return self.objects.local_path(entry.files[1].name)


def built(count: int, *, quantization: str = "none", threads: int = 2) -> Index:
    """Return the index of ``count`` rows, as one graph segment; builds it the first time."""
    folder = CACHE / f"{count}x{DIMENSIONS}-{FORMAT}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        report.errors.print(f"building an index of {count:,} rows, once, in {folder}")
        began = time.perf_counter()
        _build(folder, count, threads=threads)
        (folder / "done").write_text(f"{time.perf_counter() - began:.0f} s\n")
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
    objects = LocalObjects(folder / "objects")
    with catalog.read() as connection:
        found = connection.scalar(select(tables.generations.c.id))
    generation = generation_info(catalog, GenerationId(str(found)))
    if quantization == "int8":
        generation = _rounded(objects, generation, kept=folder / "int8")
    return Index(catalog, objects, generation, np.load(folder / "vectors.npy", mmap_mode="r"))


def _build(folder: Path, count: int, *, threads: int) -> None:
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count, DIMENSIONS))
    row = 0
    for part in made_up.sample(count, dimensions=DIMENSIONS, seed=0):
        vectors[row : row + len(part)] = part
        row += len(part)
    catalog, objects, generation = empty(folder)
    publisher = Publisher(catalog, objects)
    epoch = acquire_lease(catalog, shard=0, owner="perf", ttl_s=86_400, now=time.time())
    assert epoch is not None
    shares = _shares(vectors)
    for first in range(0, count, PUBLISHED_ROWS):
        part = slice(first, min(count, first + PUBLISHED_ROWS))
        rows = rows_of(range(part.start, part.stop), shares=shares)
        publisher.publish(generation.id, epoch=epoch, shard=0, additions=rows, vectors=np.asarray(vectors[part]))
    manifest_name = generation_info(catalog, generation.id).manifest
    assert manifest_name is not None
    manifest = read_manifest(objects, manifest_name)
    output = build_merge(objects, manifest, manifest.segments, threads=threads, graph_rows=1)
    swap = Swap([entry.id for entry in manifest.segments], output)
    publisher.publish(generation.id, epoch=epoch, shard=0, swap=swap)
    for file in (file for entry in manifest.segments for file in entry.all_files):
        objects.delete(file.name)
    catalog.dispose()


def empty(
    folder: Path, *, dimensions: int = DIMENSIONS, tenants: Sequence[str] = (TENANT,)
) -> tuple[Catalog, LocalObjects, GenerationInfo]:
    """Make a catalog with a collection of each tenant, and return it with the first one's generation."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}")
    with catalog.write() as connection:
        tables.metadata.create_all(connection)
    made = [_collection(catalog, tenant, dimensions=dimensions) for tenant in tenants]
    return catalog, LocalObjects(folder / "objects"), made[0]


def _collection(catalog: Catalog, tenant: str, *, dimensions: int) -> GenerationInfo:
    return create_collection(
        catalog,
        tenant=create_tenant(catalog, tenant, now=1.0),
        name="perf",
        model="hash",
        dimensions=dimensions,
        metric="cosine",
        chunking={},
        shards=1,
        now=1.0,
    ).generation


def _shares(vectors: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    numbers = np.random.default_rng(5)
    direction = numbers.standard_normal(vectors.shape[1]).astype(np.float32)
    passage = next(made_up.sample(1, dimensions=vectors.shape[1], seed=77))[0]
    return {
        "uniform": _ranks(numbers.random(len(vectors))),
        "half": _ranks(_products(vectors, direction)),
        "cluster": _ranks(-_products(vectors, passage)),
    }


def _products(vectors: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate(
        [np.asarray(vectors[at : at + PUBLISHED_ROWS]) @ other for at in range(0, len(vectors), PUBLISHED_ROWS)]
    )


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return for each value which share of all is lower."""
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values)) / len(values)
    return ranks


def rows_of(numbers: range, *, shares: dict[str, NDArray[np.float64]], prefix: str = "doc") -> Rows:
    """Return one document of one chunk for each number."""
    return Rows.build(
        _records(numbers, shares=shares, prefix=prefix),
        document=range(len(numbers)),
        ordinal=[0] * len(numbers),
        start=[0] * len(numbers),
        end=[80] * len(numbers),
        page=[-1] * len(numbers),
        tokens=[12] * len(numbers),
        identity=[number.to_bytes(16, "little") for number in numbers],
        texts=[
            f"Passage {number:,} says what about eighty characters of English prose would say." for number in numbers
        ],
        headings=[None] * len(numbers),
    )


def _records(numbers: range, *, shares: dict[str, NDArray[np.float64]], prefix: str) -> Iterator[DocumentRecord]:
    for number in numbers:
        yield DocumentRecord(
            document_id=f"{prefix}_{number:026x}",
            version_id=f"ver_{number:026x}",
            number=1,
            source=f"corpus/{number // 1_000}/{number}.txt",
            title=None,
            metadata={name: round(float(values[number]), 7) for name, values in shares.items()},
            event_time=None,
            expires_at=None,
            ingested_at=1_000.0,
            media_type="text/plain",
        )


def _rounded(objects: LocalObjects, generation: GenerationInfo, *, kept: Path) -> GenerationInfo:
    """Return the same generation with int8 records beside its graph; the version is nobody's but ours."""
    assert generation.manifest is not None
    if not kept.exists():
        manifest = read_manifest(objects, generation.manifest)
        flagged = replace(manifest, flags=[INT8])
        output = build_merge(objects, flagged, manifest.segments, graph_rows=1)
        data = replace(flagged, segments=[output]).to_json()
        name = f"{generation.manifest.rpartition('/')[0]}/{manifest.version:020d}-{data[12:20].decode()}.json"
        objects.put(name, [data])
        kept.write_text(name)
    return replace(generation, manifest=kept.read_text())
