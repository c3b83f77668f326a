"""The whole line in one process, its stages in any order: in the end it serves what one request after another would."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage import ledger
from penstock.storage.catalog.collections import CollectionInfo, create_collection, get_collection
from penstock.storage.catalog.documents import list_documents
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.errors import NotFound
from penstock.storage.ids import TenantId
from penstock.storage.intake.documents import SubmittedDocument, accept
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.updates import DocumentChange, update_document
from penstock.workers import chunk as chunk_role
from penstock.workers.chunk import Chunker
from penstock.workers.embed import Embedding
from penstock.workers.index import Writer
from penstock.workers.liveness import Liveness

ACME = TenantId("acme")
SOURCES = [f"s{number}" for number in range(5)]
STEPS = int(os.environ.get("PENSTOCK_TEST_STEPS", "120"))


@dataclass
class Line:
    """Producers and roles, each step of which a test may take when it likes. ``model``: source → (text, metadata)."""

    collection: CollectionInfo
    chunker: Chunker
    embedding: Embedding
    writer: Writer
    dice: random.Random
    model: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def catalog(self):
        return self.writer._components.catalog

    @property
    def place(self) -> dict[str, Any]:
        generation = self.collection.generation.id
        return {"tenant": ACME, "collection_id": self.collection.id, "generation_id": generation}

    def put(self) -> None:
        chosen = self.dice.sample(SOURCES, self.dice.randint(1, 3))
        metadata = {"n": self.dice.randrange(5)}
        texts = {source: f"{source} says {self.dice.choice('abc')}" for source in chosen}
        documents = [SubmittedDocument(s, f"{s}.txt", text.encode(), metadata=metadata) for s, text in texts.items()]
        accept(self.catalog, self.writer._components.objects, **self.place, documents=documents, now=time.time())
        self.model |= {source: (text, metadata) for source, text in texts.items()}

    def delete(self) -> None:
        chosen = self.dice.sample(SOURCES, self.dice.randint(1, 2))
        remove_documents(self.catalog, **self.place, sources=chosen, now=time.time())
        for source in chosen:
            self.model.pop(source, None)

    def update(self) -> None:
        source, patch = self.dice.choice(SOURCES), {self.dice.choice("nm"): self.dice.choice([None, 7, 8])}
        ask = {"tenant": ACME, "collection_id": self.collection.id, "limit": 1}
        for info in list_documents(self.catalog, source=source, **ask):
            options = {"document_id": info.id, "change": DocumentChange(patch=patch), "now": time.time()}
            with suppress(NotFound):
                update_document(self.catalog, **self.place, **options)
                text, metadata = self.model[source]
                self.model[source] = text, {k: v for k, v in {**metadata, **patch}.items() if v is not None}

    def send(self) -> None:
        ledger.form_chunk_batches(self.catalog, now=time.time(), max_batches=2, max_documents=self.dice.choice([1, 9]))
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

    def served(self) -> dict[str, tuple[str, dict[str, Any]]]:
        components = self.writer._components
        snapshots = wiring.new_snapshots(components.settings, self.catalog, components.objects)
        try:
            with snapshots.get(ACME, self.collection.generation.id) as snapshot:
                hits = snapshot.search(np.ones(256), k=1_000, now=time.time())
        finally:
            snapshots.close()
        assert len({hit.document.source for hit in hits}) == len(hits)
        return {hit.document.source: (hit.text, hit.document.metadata) for hit in hits}


@pytest.fixture(params=[None, 1, 2])
def line(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(chunk_role, "_limit_memory", lambda _: None)  # this process is not a chunk role's child
    chosen = os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32))
    seed = int(chosen if request.param is None else request.param)
    print(f"PENSTOCK_TEST_SEED={seed}")
    settings = Settings(
        data_dir=tmp_path, broker_url="redis://127.0.0.1:1/0", embedding={"model": "hash-256", "threads": 1}
    )
    roles = [role(settings, liveness=Liveness()) for role in (Chunker, Embedding, Writer)]
    for role in roles:
        role.open()
    catalog = roles[-1]._components.catalog
    migrate(catalog)
    create_tenant(catalog, "acme", now=1.0)
    options = {"model": "hash-256", "dimensions": 256, "metric": "cosine", "shards": 1, "now": 1.0}
    chunking = {"strategy": "recursive", "size_tokens": 16, "overlap_tokens": 0}
    collection = create_collection(catalog, tenant=ACME, name="docs", chunking=chunking, **options)
    yield Line(collection, *roles, dice=random.Random(seed))
    for role in roles:
        role.close()


def test_documents_are_served_as_if_one_request_had_followed_the_other(line):
    for step in range(STEPS):
        asked = [line.put, line.put, line.delete, line.update, line.update]
        line.dice.choice([*asked, line.send, line.send, line.work, line.work, line.work, line.publish, line.publish])()
        if step % 40 == 39:
            line.drain()
            assert line.served() == line.model
    line.drain()

    assert line.served() == line.model
    counted = get_collection(line.catalog, tenant=ACME, name="docs").documents
    assert counted == ({"indexed": len(line.model)} if line.model else {})
    jobs = list_jobs(line.catalog, tenant=ACME, limit=1_000)
    assert {job.state for job in jobs} == {"done"}
    assert not any(job.documents.get("failed") for job in jobs)
