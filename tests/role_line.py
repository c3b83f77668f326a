"""The whole line in one process: the roles chunk, embed and index, each step of which a test takes when it likes.

Nobody listens at its broker's address: the ledger alone says what is to be done, and no vector is in a cache.
"""

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.catalog.collections import CollectionInfo, create_collection
from penstock.storage.catalog.jobs import JobInfo, get_job, list_jobs
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ids import TenantId
from penstock.storage.intake.documents import Accepted, SubmittedDocument, accept
from penstock.storage.search.hits import Hit
from penstock.workers import chunk as chunk_role
from penstock.workers.chunk import Chunker
from penstock.workers.embed import Embedding
from penstock.workers.index import Writer
from penstock.workers.liveness import Liveness

from .ledger_line import form

ACME = TenantId("acme")
HASH = MappingProxyType({"model": "hash-256", "threads": 1})


@dataclass
class RoleLine:
    """Producers and roles. ``messages``: what was sent and nobody has worked on yet, as (stage, batch)."""

    collection: CollectionInfo
    chunker: Chunker
    embedding: Embedding
    writer: Writer
    dice: random.Random
    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def components(self):
        return self.writer._components

    @property
    def catalog(self):
        return self.components.catalog

    @property
    def place(self) -> dict[str, Any]:
        generation = self.collection.generation.id
        return {"tenant": ACME, "collection_id": self.collection.id, "generation_id": generation}

    def accept(self, documents: Sequence[SubmittedDocument], **options: Any) -> Accepted:
        objects, now = self.components.objects, time.time()
        return accept(self.catalog, objects, **self.place, documents=documents, now=now, **options)

    def send(self) -> None:
        form(self.catalog, ledger.Forming(2, max_documents=self.dice.choice([1, 9])), now=time.time())
        for stage in ("chunk", "embed"):
            ready = ledger.take_ready(self.catalog, stage=stage, now=time.time(), limit=2, resend_after_s=60.0)
            self.messages += [(stage, batch.id) for batch in ready]

    def work(self) -> None:
        """Do one batch that was sent, whichever it is."""
        if self.messages:
            stage, batch = self.messages.pop(self.dice.randrange(len(self.messages)))
            self.chunker.chunk(batch) if stage == "chunk" else self.embedding.embed(batch)

    def publish(self) -> None:
        self.writer.index(0)

    def drain(self) -> None:
        deadline = time.monotonic() + 60
        while any(job.state == "running" for job in list_jobs(self.catalog, tenant=ACME, limit=1_000)):
            self.send()
            while self.messages:
                self.work()
            self.publish()
            assert time.monotonic() < deadline

    def job(self, accepted: Accepted) -> JobInfo:
        return get_job(self.catalog, tenant=ACME, job_id=accepted.job_id)

    def hits(self) -> list[Hit]:
        """Return every chunk that is served."""
        snapshots = wiring.new_snapshots(self.components.settings, self.catalog, self.components.objects)
        try:
            with snapshots.get(ACME, self.collection.generation.id) as snapshot:
                return snapshot.search(np.ones(256), k=1_000, now=time.time())
        finally:
            snapshots.close()


@contextmanager
def role_line(
    folder: Path,
    *,
    seed: int,
    size_tokens: int = 16,
    kind: type[RoleLine] = RoleLine,
    embedding: Mapping[str, Any] = HASH,
    workers: Mapping[str, Any] = MappingProxyType({}),
    cache_url: str | None = None,
    catalog_url: str | None = None,
) -> Iterator[Any]:
    """Run the roles over an empty installation with the collection ``docs``, whose chunks do not overlap.

    ``embedding``, ``workers`` and ``catalog_url``: settings; the vectors of the model have 256 dimensions.
    """
    settings = Settings(
        data_dir=folder,
        broker_url="redis://127.0.0.1:1/0",
        embedding=dict(embedding),
        workers=dict(workers),
        cache_url=cache_url,
        catalog_url=catalog_url,
    )
    roles: list[Any] = [role(settings, liveness=Liveness()) for role in (Chunker, Embedding, Writer)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_role, "_limit_memory", lambda _: None)  # this process is not a chunk role's child
        for role in roles:
            role.open()
    catalog = roles[-1]._components.catalog
    migrate(catalog)
    create_tenant(catalog, "acme", now=1.0)
    options = {"model": embedding["model"], "dimensions": 256, "metric": "cosine", "shards": 1, "now": 1.0}
    chunking = {"strategy": "recursive", "size_tokens": size_tokens, "overlap_tokens": 0}
    collection = create_collection(catalog, tenant=ACME, name="docs", chunking=chunking, **options)  # type: ignore[arg-type]
    yield kind(collection, *roles, dice=random.Random(seed))
    for role in roles:
        role.close()
