"""What the tests of the storage engine share: sample rows, a small catalog, a reader that trusts nothing."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert, select

from penstock.storage.catalog import tables
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.statements import insert_if_absent
from penstock.storage.catalog.tenants import ensure_installation
from penstock.storage.ids import CollectionId, GenerationId, TenantId
from penstock.storage.objects.local import LocalObjects
from penstock.storage.objects.store import ObjectInfo, ObjectStore
from penstock.storage.publishing.planning import FAN_IN
from penstock.storage.publishing.publisher import PublishedManifest, Publisher, acquire_lease
from penstock.storage.segments.checks import verify_segment
from penstock.storage.segments.manifests import Manifest, read_manifest
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows, chunk_identity
from penstock.storage.segments.sections import Sections, open_sections
from penstock.storage.segments.segment import open_segment
from penstock.storage.segments.tombstones import read_deletes

TENANT = TenantId("acme")
GENERATION = GenerationId("gen_1")
DIMENSIONS = 8
ADMIN_KEY = "the key of these tests"
Content = dict[str, list[tuple[str, tuple[float, ...]]]]  # document id → texts and vectors of its live chunks


def sections_of(data: bytes, *, kind: str, name: str = "object") -> Sections:
    """Open a container file of these bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        return open_sections(path, kind=kind)


def record(document_id: str, *, number: int = 1, **values: object) -> DocumentRecord:
    given: dict[str, object] = {
        "document_id": document_id,
        "version_id": f"{document_id}-v{number}",
        "number": number,
        "source": f"folder/{document_id}.txt",
        "title": None,
        "metadata": {"topic": document_id[:1], "tags": ["x", "y"]},
        "event_time": None,
        "expires_at": None,
        "ingested_at": 1_000.0,
        "media_type": "text/plain",
    }
    return DocumentRecord(**{**given, **values})  # type: ignore[arg-type]


def rows_of(texts: dict[str, Sequence[str]], *, number: int = 1) -> Rows:
    """One document per key, one chunk per text."""
    pairs = [(owner, ordinal, text) for owner, own in enumerate(texts.values()) for ordinal, text in enumerate(own)]
    return Rows.build(
        [record(document_id, number=number) for document_id in texts],
        document=[owner for owner, _, _ in pairs],
        ordinal=[ordinal for _, ordinal, _ in pairs],
        start=[100 * ordinal for _, ordinal, _ in pairs],
        end=[100 * ordinal + len(text) for _, ordinal, text in pairs],
        page=[-1 if ordinal % 2 else ordinal + 1 for _, ordinal, _ in pairs],
        tokens=[len(text) for _, _, text in pairs],
        identity=[chunk_identity(text, chunking={}) for _, _, text in pairs],
        texts=[text for _, _, text in pairs],
        headings=[None if ordinal % 2 else f"Heading {ordinal}" for _, ordinal, _ in pairs],
    )


def many_rows(count: int, *, prefix: str = "d", per_document: int = 4) -> Rows:
    documents = -(-count // per_document)
    texts = {f"{prefix}{i}": [f"{prefix}{i} text {j}" for j in range(per_document)] for i in range(documents)}
    return rows_of(texts).take(np.arange(count))


def unit_vectors(count: int, *, dimensions: int = DIMENSIONS, seed: int = 0) -> NDArray[np.float32]:
    vectors = np.random.default_rng(seed).standard_normal((count, dimensions)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def new_catalog(url: str) -> Catalog:
    """Return a catalog with its whole schema, the tenant ``default`` and the admin key, and nothing else."""
    catalog = Catalog.open(url)
    migrate(catalog)
    ensure_installation(catalog, now=1.0, key=ADMIN_KEY)
    return catalog


def open_catalog(
    folder: Path,
    *,
    url: str | None = None,
    metric: str = "cosine",
    quantization: str = "none",
    dimensions: int = DIMENSIONS,
) -> Catalog:
    """A catalog with one tenant, one collection and one generation in shard 0."""
    folder.mkdir(parents=True, exist_ok=True)
    catalog = Catalog.open(url or f"sqlite:///{folder / 'catalog.db'}")
    with catalog.write() as connection:
        tables.metadata.create_all(connection)
    add_generation(
        catalog,
        tenant=TENANT,
        generation_id=GENERATION,
        metric=metric,
        quantization=quantization,
        dimensions=dimensions,
    )
    return catalog


def add_generation(
    catalog: Catalog,
    *,
    tenant: TenantId,
    generation_id: GenerationId,
    metric: str = "cosine",
    quantization: str = "none",
    dimensions: int = DIMENSIONS,
) -> None:
    collection = CollectionId(f"collection-of-{generation_id}")
    with catalog.write() as connection:
        insert_if_absent(connection, tables.tenants, {"id": tenant, "created_at": 0})
        connection.execute(
            insert(tables.collections).values(id=collection, tenant_id=tenant, name=str(generation_id), created_at=0)
        )
        connection.execute(
            insert(tables.generations).values(
                id=generation_id,
                tenant_id=tenant,
                collection_id=collection,
                state="active",
                model="hash",
                dimensions=dimensions,
                metric=metric,
                quantization=quantization,
                chunking={"strategy": "auto"},
                shard=0,
                created_at=0,
            )
        )


@dataclass
class Store:
    """A catalog, objects and a writer of shard 0 whose lease is taken at the first publish."""

    catalog: Catalog
    objects: ObjectStore
    now: float = 1_000_000.0
    owner: str = "writer"
    epoch: int | None = None
    fan_in: int = FAN_IN
    published: list[PublishedManifest] = field(default_factory=list)

    def clock(self) -> float:
        self.now += 1
        return self.now

    def publish(self, **changes: object) -> PublishedManifest:
        if self.epoch is None:
            self.epoch = acquire_lease(self.catalog, shard=0, owner=self.owner, ttl_s=60, now=self.now)
            assert self.epoch is not None
        publisher = Publisher(self.catalog, self.objects, clock=self.clock, fan_in=self.fan_in)
        published = publisher.publish(GENERATION, epoch=self.epoch, shard=0, **changes)  # type: ignore[arg-type]
        self.published.append(published)
        return published

    def add(self, texts: dict[str, Sequence[str]], *, seed: int = 0, **changes: object) -> PublishedManifest:
        rows = rows_of(texts)
        return self.publish(additions=rows, vectors=unit_vectors(len(rows), seed=seed), **changes)

    def content(self) -> Content:
        return served(self.catalog, self.objects)


def new_store(folder: Path, **options: object) -> Store:
    return Store(open_catalog(folder, **options), LocalObjects(folder / "objects"))  # type: ignore[arg-type]


def current_manifest(catalog: Catalog, objects: ObjectStore) -> Manifest | None:
    with catalog.read() as connection:
        name = connection.scalar(select(tables.generations.c.manifest).where(tables.generations.c.id == GENERATION))
    return read_manifest(objects, name) if name else None


def served(catalog: Catalog, objects: ObjectStore) -> Content:
    """What a reader serves now, after comparing every file with its checksum and the catalog's chunks with both."""
    manifest = current_manifest(catalog, objects)
    content: Content = {}
    chunk_ids: list[int] = []
    for entry in manifest.segments if manifest else []:
        verify_segment(objects, entry, dimensions=manifest.dimensions)
        segment = open_segment(objects, entry, dimensions=manifest.dimensions)
        live = np.setdiff1d(np.arange(entry.row_count), read_deletes(objects, entry))
        vectors = segment.row_vectors(live)
        for row, vector in zip(live.tolist(), vectors, strict=True):
            document = segment.documents[int(segment.rows.document[row])].document_id
            content.setdefault(document, []).append((segment.rows.text(row), tuple(vector.tolist())))
            chunk_ids.append(int(segment.chunk_ids[row]))
    assert len(set(chunk_ids)) == len(chunk_ids) == _live_chunks(catalog, manifest)
    return content


def texts_of(content: Content) -> dict[str, list[str]]:
    return {document: [text for text, _ in chunks] for document, chunks in content.items()}


def _live_chunks(catalog: Catalog, manifest: Manifest | None) -> int:
    with catalog.read() as connection:
        mine = tables.generations.c.id == GENERATION
        row = connection.execute(select(tables.generations).where(mine)).mappings().one()
    if manifest is not None:
        assert (row["version"], row["next_chunk_id"]) == (manifest.version, manifest.next_chunk_id)
        assert row["writer_epoch"] == manifest.writer_epoch
    return row["live_chunks"]


class InterceptedObjects:
    """An object store that calls ``before`` with the number, name of the method and arguments of every operation.

    ``before`` may raise, or return a function to be called after the operation, which may raise too.
    """

    def __init__(self, inner: ObjectStore, before: Callable[..., Callable[[], None] | None]) -> None:
        self.inner = inner
        self.before = before
        self.count = 0

    def _do(self, method: str, *args: object, **options: object):
        self.count += 1
        after = self.before(self.count, method, *args)
        result = getattr(self.inner, method)(*args, **options)
        if after is not None:
            after()
        return result

    def put(self, name: str, parts: Sequence[bytes | memoryview]) -> None:
        self._do("put", name, parts)

    def get(self, name: str) -> bytes:
        return self._do("get", name)

    def get_range(self, name: str, *, offset: int, size_bytes: int) -> bytes:
        return self._do("get_range", name, offset=offset, size_bytes=size_bytes)

    def local_path(self, name: str, *, blake2b: str | None = None) -> Path:
        return self._do("local_path", name, blake2b=blake2b)

    def is_local(self, name: str) -> bool:
        return self.inner.is_local(name)

    def drop_damaged_copy(self, name: str, *, blake2b: str) -> bool:
        return self._do("drop_damaged_copy", name, blake2b=blake2b)

    def adopt(self, name: str, path: Path) -> None:
        self._do("adopt", name, path)

    def scratch(self) -> Path:
        return self._do("scratch")

    def exists(self, name: str) -> bool:
        return self._do("exists", name)

    def missing(self, names: Iterable[str]) -> "list[str]":
        return self._do("missing", list(names))

    def find(self, name: str) -> ObjectInfo | None:
        return self._do("find", name)

    def delete(self, name: str) -> None:
        self._do("delete", name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._do("list", prefix)
