"""The catalog made again from the object store alone, into an empty one: what the manifests and the segments tell.

Tenants, collections, generations, the history of versions, documents and their indexed versions come back under their
ids and names. What only the catalog knew is gone: tags, jobs and their counts, why documents failed, collections that
never published, and which source the bytes of a document had that was accepted and not indexed yet. A collection that
was deleted a moment ago may come back, for its files are still there.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.manifests import Origin, record_manifest
from ..catalog.statements import insert_absent, insert_if_absent
from ..catalog.tables import batches, collections, documents, generations, jobs, manifests, shards, tenants, versions
from ..catalog.values import slices
from ..errors import Conflict
from ..failpoints import hit
from ..ids import CollectionId, JobId, TenantId, new_id
from ..objects.store import ObjectStore
from ..segments.lookups import read_chunks
from ..segments.manifests import INT8, Manifest
from ..segments.records import DocumentRecord
from .findings import Finding
from .lineages import Lineage, find_lineages, find_tenants
from .losses import not_serving, superseded, unreadable, unserved, untouched_fork, unused_packs

MUST_BE_EMPTY = (collections, generations, manifests, documents, versions, jobs, batches)
_ROWS_AT_ONCE = 1_000


@dataclass
class Rebuilt:
    """How many rows were made, and what could not be."""

    tenants: int = 0
    collections: int = 0
    versions: int = 0
    documents: int = 0
    findings: list[Finding] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        return {name: count for name, count in vars(self).items() if isinstance(count, int)}


def rebuild_catalog(catalog: Catalog, objects: ObjectStore, *, now: float) -> Rebuilt:
    """Make the rows, in one transaction. The catalog has its schema, and at most tenants and the admin key.

    Raises:
        Conflict: the catalog is not empty: nothing was changed.
        Damaged: a segment of a version that looked whole is not what was written; nothing was changed.
        Unsupported: something was written by a newer program; nothing was changed.
    """
    result = Rebuilt()
    with catalog.write("rebuild_catalog") as connection:
        _refuse_unless_empty(connection)
        for tenant in find_tenants(objects):
            result.tenants += insert_if_absent(connection, tenants, {"id": tenant, "created_at": now})
            _rebuild_tenant(connection, objects, result, tenant=tenant, now=now)
        hit("rebuild.rows_made")
    return result


def _refuse_unless_empty(connection: Connection) -> None:
    for table in MUST_BE_EMPTY:
        if connection.scalar(sa.select(sa.exists().select_from(table))):
            raise Conflict(
                f"the catalog is not empty (there are {table.name}): a catalog is made again only into an empty one, "
                "because nobody could tell which of the two is right; move it away first"
            )


def _rebuild_tenant(
    connection: Connection, objects: ObjectStore, result: Rebuilt, *, tenant: TenantId, now: float
) -> None:
    lineages: dict[CollectionId, list[Lineage]] = defaultdict(list)
    for found in find_lineages(objects, tenant):
        if isinstance(found, Lineage):
            lineages[found.newest.collection_id].append(found)
            result.findings += [unreadable(name, tenant=tenant) for name in found.unreadable]
        else:
            result.findings += [unserved(found, tenant=tenant)]
    used: set[str] = set()
    for mine in _by_name(lineages, result, tenant=tenant):
        writer = _CollectionWriter(connection, objects, result, now=now)
        writer.write(mine)
        used |= writer.packs
    result.findings += unused_packs(objects, used, tenant=tenant)


def _by_name(
    lineages: dict[CollectionId, list[Lineage]], result: Rebuilt, *, tenant: TenantId
) -> Iterator[Sequence[Lineage]]:
    """Yield the generations of each collection, the one that serves first; of two of one name the one published last.

    A fork into which nothing was ever published gives way to any other: its name may have been taken when it was asked
    for, and its process dead before it could find out.
    """
    ordered = [sorted(mine, key=_served_since, reverse=True) for mine in lineages.values()]
    taken: set[str] = set()
    for mine in sorted(ordered, key=lambda mine: (mine[0].is_untouched_fork, -_published_at(mine[0]))):
        name = mine[0].newest.collection_name
        if name in taken:
            told = untouched_fork if mine[0].is_untouched_fork else superseded
            result.findings.append(told(mine[0], tenant=tenant))
            continue
        taken.add(name)
        yield mine


def _served_since(lineage: Lineage) -> tuple[float, float]:
    """Return what is highest of the generation that was active last: one that is being built never was."""
    return lineage.newest.active_since or 0.0, lineage.newest.created_at


def _published_at(lineage: Lineage) -> float:
    return lineage.newest.created_at


class _CollectionWriter:
    """Inserts the rows of one collection."""

    def __init__(self, connection: Connection, objects: ObjectStore, result: Rebuilt, *, now: float) -> None:
        self._connection = connection
        self._objects = objects
        self._result = result
        self._now = now
        self._job_id = JobId(new_id("job"))
        self._seen: set[str] = set()  # documents
        self.packs: set[str] = set()

    def write(self, lineages: Sequence[Lineage]) -> None:
        """Insert the collection with its generations, of which the first is the active one.

        Another one, of a re-embedding, is over: only its name is kept, for the tokens that tell it.
        """
        newest = lineages[0].newest
        owner = {"tenant_id": newest.tenant_id, "created_at": min(lineage.first_at for lineage in lineages)}
        self._insert(collections, [{"id": newest.collection_id, "name": newest.collection_name, **owner}])
        job = {"id": self._job_id, "collection_id": newest.collection_id, "state": "done", "finished_at": self._now}
        self._insert(jobs, [job | {"tenant_id": newest.tenant_id, "created_at": self._now}])
        self._result.collections += 1
        for position, lineage in enumerate(lineages):
            self._write_generation(lineage, state="dropped" if position else "active")
            if position:
                self._result.findings.append(not_serving(lineage, tenant=lineage.newest.tenant_id))

    def _write_generation(self, lineage: Lineage, *, state: str) -> None:
        name, newest = lineage.versions[0]
        same = ("tenant_id", "collection_id", "model", "dimensions", "metric", "chunking", "shard", "version",
                "writer_epoch", "next_chunk_id", "live_chunks")  # fmt: skip
        row = {fact: getattr(newest, fact) for fact in same} | {
            "id": lineage.generation_id,
            "state": state,
            "quantization": "int8" if INT8 in newest.flags else "none",
            "manifest": name if state == "active" else None,
            "published_at": newest.created_at,
            "active_since": newest.active_since or lineage.first_at,
            "created_at": lineage.first_at,
        }
        self._insert(generations, [row])
        for kept, manifest in reversed(lineage.versions if state == "active" else ()):
            origin = Origin("fork" if manifest.version == 1 and manifest.writer_epoch == 0 else "publish")
            record_manifest(self._connection, manifest, name=kept, origin=origin)
            self._result.versions += 1
        self._hold_epoch(newest.shard, lineage.last_epoch)
        if state == "active":
            self._write_documents(newest)

    def _hold_epoch(self, shard: int, epoch: int) -> None:
        """Let the next writer's epoch be above all that there were: a lower one would never publish."""
        insert_if_absent(self._connection, shards, {"shard": shard, "epoch": 0, "expires_at": 0.0})
        raised = sa.update(shards).where(shards.c.shard == shard, shards.c.epoch < epoch)
        self._connection.execute(raised.values(epoch=epoch))

    def _write_documents(self, manifest: Manifest) -> None:
        for entry in manifest.segments:
            chunks = read_chunks(self._objects, entry)
            counts = np.bincount(chunks.document, minlength=len(chunks.documents))
            live = np.flatnonzero(counts).tolist()
            for first in range(0, len(live), _ROWS_AT_ONCE):
                some = live[first : first + _ROWS_AT_ONCE]
                records = [(chunks.documents[position], int(counts[position])) for position in some]
                self._write_records(manifest, [one for one in records if one[0].document_id not in self._seen])

    def _write_records(self, manifest: Manifest, records: Sequence[tuple[DocumentRecord, int]]) -> None:
        if not records:
            return
        self._seen |= {record.document_id for record, _ in records}
        owner = {"tenant_id": manifest.tenant_id, "collection_id": manifest.collection_id}
        rows = [
            {**owner, "id": one.document_id, "source": one.source, "newest": one.number, "created_at": one.ingested_at}
            for one, _ in records
        ]
        insert_absent(self._connection, documents, rows)
        taken = self._taken([record.version_id for record, _ in records])
        rows = [self._version(manifest, one, chunk_count=count) for one, count in records]
        self._insert(versions, [row | {"id": new_id("ver")} if row["id"] in taken else row for row in rows])
        self._result.documents += len(records)

    def _version(self, manifest: Manifest, record: DocumentRecord, *, chunk_count: int) -> dict[str, Any]:
        original = record.original
        if original is not None:
            self.packs.add(original["pack"])
        return {
            "id": record.version_id,
            "tenant_id": manifest.tenant_id,
            "collection_id": manifest.collection_id,
            "generation_id": manifest.generation_id,
            "document_id": record.document_id,
            "job_id": self._job_id,
            "number": record.number,
            "state": "indexed",
            "filename": original["filename"] if original else record.source,
            "media_type": original["media_type"] if original else record.media_type,
            "title": record.title,
            "metadata": record.metadata,
            "event_time": record.event_time,
            "expires_at": record.expires_at,
            "content_hash": bytes.fromhex(original["content_hash"]) if original else b"",
            "metadata_hash": bytes.fromhex(original["metadata_hash"]) if original else b"",
            "pack": original["pack"] if original else "",
            "pack_offset": original["pack_offset"] if original else 0,
            "size_bytes": original["size_bytes"] if original else 0,
            "chunk_count": chunk_count,
            "created_at": record.ingested_at,
            "finished_at": record.ingested_at,
            "indexed_version": manifest.version,
        }

    def _taken(self, ids: Sequence[str]) -> set[str]:
        """Return those version ids that have a row already: a fork shares documents with its origin."""
        found = (sa.select(versions.c.id).where(versions.c.id.in_(some)) for some in slices(ids))
        return {one for wanted in found for one in self._connection.scalars(wanted)}

    def _insert(self, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
        self._connection.execute(sa.insert(table), list(rows))
