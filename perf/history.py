"""What do the past of a large collection cost: comparing two versions, rolling back, forking an old version?

Every document was submitted twice, as one chunk of few dimensions: all of them differ between the two versions. Each
question is asked in a process of its own, of the same collection; its memory is what it adds at its highest to the
memory that is not of files, looked at every few milliseconds. Catalog (SQLite) and files are on this disk.

Doubts: a highest moment between two looks is not seen. Real documents have more chunks and longer records: time and
memory of a slice go with those.
"""

import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import indexes
import numpy as np
import report
import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog import tables
from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import GenerationInfo
from penstock.storage.catalog.references import Reference, find_version
from penstock.storage.ids import ManifestVersion
from penstock.storage.objects.local import LocalObjects
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.publishing.publisher import PublishedManifest, Publisher, acquire_lease
from penstock.storage.publishing.rollbacks import plan_rollback
from penstock.storage.segments.differences import Comparison
from penstock.storage.segments.manifests import Manifest, read_manifest
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows

DIMENSIONS = 8
PUBLISHED = 50_000
PAGE = 1_000
QUICK_DOCUMENTS = 20_000
LOOK_S = 0.002
DAY_S = 86_400.0


class History:
    """A collection whose documents were all submitted twice; opened anew in each process."""

    def __init__(self, folder: Path, generation: GenerationInfo) -> None:
        self.folder, self.generation = folder, generation

    @property
    def catalog(self) -> Catalog:
        return Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}")

    @property
    def objects(self) -> LocalObjects:
        return LocalObjects(self.folder / "objects")

    def manifest(self, version: int) -> Manifest:
        found = find_version(self.catalog, self.generation.id, Reference(version=version))
        assert found is not None
        return read_manifest(self.objects, found.name)

    def publish(self, numbers: range, *, edition: int) -> None:
        """Index these documents, as the writer does, but with rows that nobody submitted."""
        catalog = self.catalog
        records = [_record(number, edition) for number in numbers]
        version = edition * len(numbers)  # of the index; close enough for what nobody reads

        def note(connection: sa.Connection, _published: PublishedManifest) -> None:
            _insert(connection, self.generation, records, edition=edition, indexed_version=version)

        Publisher(catalog, self.objects).publish(
            self.generation.id,
            epoch=lease(catalog),
            shard=0,
            additions=_rows(records),
            vectors=np.random.default_rng(edition).standard_normal((len(records), DIMENSIONS)).astype(np.float32),
            in_transaction=note,
        )


def lease(catalog: Catalog) -> int:
    epoch = acquire_lease(catalog, shard=0, owner="perf", ttl_s=DAY_S, now=time.time())
    assert epoch is not None
    return epoch


def built(folder: Path, count: int, *, quiet: bool) -> tuple[History, int, int]:
    """Make the collection; returns it with the version after the first edition of all, and the one after the second."""
    _, _, generation = indexes.empty(folder, dimensions=DIMENSIONS)
    history = History(folder, generation)
    parts = [range(first, min(count, first + PUBLISHED)) for first in range(0, count, PUBLISHED)]
    with report.progress(quiet=quiet) as bar:
        task = bar.add_task("publishing", total=2 * count)
        for edition in (1, 2):
            for part in parts:
                history.publish(part, edition=edition)
                bar.advance(task, len(part))
    return history, len(parts), 2 * len(parts)


def measured(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """Do the work in a process of its own; returns what it returns, and the megabytes that it needed."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_watched, (work, *args))


def _watched(work: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    ended, most = threading.Event(), 0.0
    before = _anonymous_mb()

    def look() -> None:
        nonlocal most
        while not ended.wait(LOOK_S):
            most = max(most, _anonymous_mb())

    looking = threading.Thread(target=look)
    looking.start()
    result = work(*args)
    ended.set()
    looking.join()
    return result, max(0.0, most - before)


def _anonymous_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def compare(history: History, before: int, after: int) -> dict[str, float]:
    """Count what differs, and go through it page by page, as a client does."""
    former, latter = history.manifest(before), history.manifest(after)
    began = time.perf_counter()
    counts = Comparison(history.objects, former, latter).counts()
    counted = time.perf_counter()
    pages: list[float] = []
    last, told = None, 0
    while True:
        asked = time.perf_counter()
        page = Comparison(history.objects, former, latter).page(after=last, limit=PAGE)
        if not page:
            break
        pages.append(time.perf_counter() - asked)
        last, told = page[-1].document.document_id, told + len(page)
    assert told == counts.changed
    return {"count_s": counted - began, "page_ms": 1e3 * float(np.median(pages)), "all_s": sum(pages)}


def roll_back(history: History, version: int) -> float:
    catalog, objects, now = history.catalog, history.objects, time.time()
    ledger.open_rollback(catalog, generation_id=history.generation.id, version=version, now=now)
    claim = ledger.claim_rollback(catalog, shard=0, owner="perf", lease_s=DAY_S, now=now, max_attempts=1)
    assert claim is not None
    began = time.perf_counter()
    rollback = plan_rollback(catalog, objects, history.generation.id, version=ManifestVersion(version))

    def finish(connection: sa.Connection, published: PublishedManifest) -> None:
        told = {"manifest": published.manifest, "changed": published.changed, "now": time.time()}
        ledger.finish_rollback(connection, claim, rollback, **told)

    Publisher(catalog, objects).publish(
        history.generation.id, epoch=lease(catalog), shard=0, rollback=rollback, in_transaction=finish
    )
    return time.perf_counter() - began


def fork(history: History, version: int) -> float:
    catalog = history.catalog
    parent = get_collection(catalog, tenant=indexes.TENANT, name="perf")
    began = time.perf_counter()
    reference = Reference(version=version)
    fork_collection(catalog, history.objects, parent=parent, reference=reference, name="copy", clock=time.time)
    return time.perf_counter() - began


def _record(number: int, edition: int) -> DocumentRecord:
    return DocumentRecord(
        document_id=f"doc_{number:026x}",
        version_id=f"ver_{edition:02x}{number:024x}",
        number=edition,
        source=f"corpus/{number // 1_000}/{number}.txt",
        title=f"Document {number:,}, edition {edition}",
        metadata={"author": f"author {number % 997}", "topic": f"topic {number % 89}", "year": 1900 + number % 120},
        event_time=1e9 + number,
        expires_at=None,
        ingested_at=1.7e9,
        media_type="text/plain",
        original={
            "filename": f"{number}.txt",
            "media_type": "text/plain",
            "pack": f"tenants/perf/packs/{edition:064x}",
            "pack_offset": 80 * number,
            "size_bytes": 80,
            "content_hash": _hash(number, edition).hex(),
            "metadata_hash": _hash(number, edition).hex(),
        },
    )


def _hash(number: int, edition: int) -> bytes:
    return number.to_bytes(16, "big") + edition.to_bytes(16, "big")


def _rows(records: list[DocumentRecord]) -> Rows:
    count = len(records)
    return Rows.build(
        records,
        document=range(count),
        ordinal=[0] * count,
        start=[0] * count,
        end=[80] * count,
        page=[-1] * count,
        tokens=[12] * count,
        identity=[_hash(number, 0)[:16] for number in range(count)],
        texts=["What about eighty characters of English prose would say, said of no document in."] * count,
        headings=[None] * count,
    )


def _insert(
    connection: sa.Connection,
    generation: GenerationInfo,
    records: list[DocumentRecord],
    *,
    edition: int,
    indexed_version: int,
) -> None:
    owner = {"tenant_id": generation.tenant_id, "collection_id": _collection_id(connection)}
    ids = [record.document_id for record in records]
    job = f"job_{edition}_{ids[0]}"
    connection.execute(sa.insert(tables.jobs).values(**owner, id=job, state="done", created_at=1.0, finished_at=1.0))
    if edition == 1:
        made = {**owner, "newest": 1, "created_at": 1.0}
        connection.execute(
            sa.insert(tables.documents),
            [{**made, "id": one.document_id, "source": one.source, "highest": 1} for one in records],
        )
    else:
        mine = tables.versions.c.document_id.between(ids[0], ids[-1])
        connection.execute(sa.update(tables.versions).where(mine).values(state="superseded", finished_at=2.0))
        mine = tables.documents.c.id.between(ids[0], ids[-1])
        connection.execute(sa.update(tables.documents).where(mine).values(newest=edition, highest=edition))
    rest = {**owner, "generation_id": generation.id, "job_id": job, "state": "indexed", "chunk_count": 1}
    rest |= {"number": edition, "indexed_version": indexed_version, "created_at": 1.0, "finished_at": 1.0}
    connection.execute(sa.insert(tables.versions), [{**rest, **_version(one)} for one in records])


def _version(record: DocumentRecord) -> dict[str, Any]:
    original = record.original
    assert original is not None
    hashes = {name: bytes.fromhex(original[name]) for name in ("content_hash", "metadata_hash")}
    told = {name: original[name] for name in ("filename", "media_type", "pack", "pack_offset", "size_bytes")}
    same = {name: getattr(record, name) for name in ("document_id", "title", "metadata", "event_time")}
    return {"id": record.version_id, **same, **told, **hashes}


def _collection_id(connection: sa.Connection) -> str:
    return str(connection.scalar(sa.select(tables.collections.c.id)))


def main() -> None:
    flags = report.parser("What does the past of a large collection cost?")
    flags.add_argument("--documents", type=int, default=200_000, help="that differ between the two versions")
    given = flags.parse_args()
    count = min(given.documents, QUICK_DOCUMENTS) if given.quick else given.documents
    folder = Path(tempfile.mkdtemp(prefix="history-"))
    try:
        history, before, after = built(folder, count, quiet=given.json)
        compared, compare_mb = measured(compare, history, before, after)
        fork_s, fork_mb = measured(fork, history, before)
        rollback_s, rollback_mb = measured(roll_back, history, before)
    finally:
        shutil.rmtree(folder)
    answer = report.Report("history", {**report.conditions(["sqlalchemy"]), "documents that differ": count})
    for name, (value, unit) in {
        "diff_count_s": (compared["count_s"], "s, once for two versions"),
        "diff_page_ms": (compared["page_ms"], f"ms, p50 of pages of {PAGE:,}"),
        "diff_all_s": (compared["all_s"], "s, all pages"),
        "diff_mb": (compare_mb, "MB"),
        "fork_s": (fork_s, "s"),
        "fork_mb": (fork_mb, "MB"),
        "rollback_s": (rollback_s, "s"),
        "rollback_mb": (rollback_mb, "MB"),
    }.items():
        answer.figures[name] = report.Figure(value, unit)
    report.show(answer, as_json=given.json)


if __name__ == "__main__":
    main()
