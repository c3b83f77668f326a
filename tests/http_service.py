"""What the tests of the HTTP interface share: a real server on a free port, and a pipeline in one function."""

import math
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa
import uvicorn

from penstock.api.http.app import make_app
from penstock.api.http.components import Components
from penstock.client import Penstock
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.catalog.completion import finish_jobs
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import documents, generations, versions
from penstock.storage.catalog.tenants import create_tenant, ensure_installation
from penstock.storage.publishing.publisher import Publisher, acquire_lease
from penstock.storage.segments.records import DocumentRecord
from penstock.storage.segments.rows import Rows, chunk_identity
from penstock.workers.changes import changes_of

KEY = "pk_admin_of_these_tests_only"


@dataclass
class Service:
    """A running server. ``http`` has the key; `penstock` is the client of a tenant."""

    url: str
    settings: Settings
    components: Components
    http: httpx.Client
    epoch: int | None = None

    def penstock(self, tenant: str = "default", *, key: str = KEY) -> Penstock:
        return Penstock(self.url, key, tenant, timeout_s=20)

    def index(self) -> None:
        """Chunk (one chunk per document), embed and publish what is queued, in place of the workers; then removals."""
        catalog = self.components.catalog
        if self.epoch is None:
            self.epoch = acquire_lease(catalog, shard=0, owner="tests", ttl_s=3600, now=self.components.clock())
            assert self.epoch is not None
        for generation_id in _queued_generations(catalog):
            self._index(generation_id)
        options = {"lease_s": 60.0, "now": self.components.clock(), "max_chunks": 100_000}
        for group in ledger.claim_index(catalog, shard=0, owner="tests", **options):
            self._change(group)

    def _change(self, group: ledger.IndexGroup) -> None:
        changes = changes_of([group])

        def finish(connection: sa.Connection, published: Any) -> None:
            done = {"version": published.manifest.version, "trimmed": published.trimmed}
            ledger.finish_indexing(connection, [group], now=self.components.clock(), **done)

        assert self.epoch is not None
        Publisher(self.components.catalog, self.components.objects).publish(
            group.generation.id,
            epoch=self.epoch,
            shard=0,
            removed_document_ids=changes.removed,
            revisions=changes.revisions,
            trims=changes.trims,
            in_transaction=finish,
        )

    def _index(self, generation_id: str) -> None:
        catalog, objects = self.components.catalog, self.components.objects
        rows, ids, model = _chunked(self.components, generation_id)
        publisher = Publisher(catalog, objects)

        def mark(connection: sa.Connection, published: Any) -> None:
            indexed = {"state": "indexed", "chunk_count": 1, "indexed_version": published.manifest.version}
            replaced = (
                versions.c.document_id.in_(rows.document_ids),
                versions.c.state.in_(("indexed", "deleting", "indexing")),
            )
            connection.execute(sa.update(versions).where(*replaced).values(state="superseded"))
            for state in ("chunking", "embedding", "indexing"):
                connection.execute(sa.update(versions).where(versions.c.id.in_(ids)).values(state=state))
            connection.execute(sa.update(versions).where(versions.c.id.in_(ids)).values(indexed))
            finish_jobs(connection, now=self.components.clock())

        vectors = self.components.embedders.of(*model).embed_passages(rows.texts())
        assert self.epoch is not None
        publisher.publish(
            generation_id, epoch=self.epoch, shard=0, additions=rows, vectors=vectors, in_transaction=mark
        )


@contextmanager
def running_service(folder: Path, *, made: bool = False, **options: Any) -> Iterator[Service]:
    """Run a server over an empty installation with the tenants ``default`` and ``other``, or over one that is there."""
    chosen: dict[str, Any] = {"embedding": {"model": "hash"}, "api": {"search_threads": 2}, "search": {"poll_s": 0.2}}
    settings = Settings(data_dir=folder, **{**chosen, **options})
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.sqlite3'}")
    migrate(catalog)
    ensure_installation(catalog, now=1.0, key=KEY)
    if not made:
        create_tenant(catalog, "other", now=2.0)
    catalog.dispose()
    app = make_app(settings)
    with _serving(app) as url, httpx.Client(base_url=url, headers={"Authorization": f"Bearer {KEY}"}) as client:
        # However slow this machine is, a job is counted at each look, and not told as it was a moment ago.
        app.state.components.tallies._cheap_s = math.inf
        yield Service(url, settings, app.state.components, client)


@contextmanager
def _serving(app: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    started = threading.Event()
    startup = server.startup

    async def announced(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = announced  # type: ignore[method-assign]
    thread.start()
    try:
        assert started.wait(120)
        assert server.started
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def _queued_generations(catalog: Catalog) -> list[str]:
    with catalog.read() as connection:
        found = sa.select(versions.c.generation_id).where(versions.c.state == "queued").distinct()
        return list(connection.scalars(found))


def _chunked(components: Components, generation_id: str) -> tuple[Rows, list[str], tuple[str, int]]:
    wanted = sa.select(versions, documents.c.source).join(documents, documents.c.id == versions.c.document_id)
    wanted = wanted.where(versions.c.generation_id == generation_id, versions.c.state == "queued")
    with components.catalog.read() as connection:
        found = connection.execute(wanted.order_by(versions.c.id)).all()
        chosen = sa.select(generations.c.model, generations.c.dimensions).where(generations.c.id == generation_id)
        model = connection.execute(chosen).one()
    texts = [
        components.objects.get_range(row.pack, offset=row.pack_offset, size_bytes=row.size_bytes).decode()
        for row in found
    ]
    count = len(found)
    rows = Rows.build(
        [_record(row) for row in found],
        document=list(range(count)),
        ordinal=[0] * count,
        start=[0] * count,
        end=[len(text) for text in texts],
        page=[-1] * count,
        tokens=[1] * count,
        identity=[chunk_identity(text, chunking={}) for text in texts],
        texts=texts,
        headings=[None] * count,
    )
    return rows, [row.id for row in found], (model.model, model.dimensions)


def _record(row: Any) -> DocumentRecord:
    return DocumentRecord(
        document_id=row.document_id,
        version_id=row.id,
        number=row.number,
        source=row.source,
        title=row.title,
        metadata=row.metadata,
        event_time=row.event_time,
        expires_at=row.expires_at,
        ingested_at=row.created_at,
        media_type=row.media_type or "text/plain",
        original={
            "filename": row.filename,
            "media_type": row.media_type,
            "pack": row.pack,
            "pack_offset": row.pack_offset,
            "size_bytes": row.size_bytes,
            "content_hash": row.content_hash.hex(),
            "metadata_hash": row.metadata_hash.hex(),
        },
    )
