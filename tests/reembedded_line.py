"""The line of roles of a collection that is being embedded again: the maintenance role plays too."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from penstock.settings import wiring
from penstock.storage import ledger
from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.followers import wake
from penstock.storage.ids import DocumentId
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.trims import LocatedChunk, remove_chunks
from penstock.storage.intake.updates import DocumentChange, update_document
from penstock.storage.reembedding.commands import NewGeneration, Terms, begin
from penstock.storage.reembedding.records import ReembeddingInfo, find_reembedding
from penstock.storage.search.hits import Hit
from penstock.storage.segments.records import DocumentRecord
from penstock.workers.liveness import Liveness
from penstock.workers.maintenance import Maintenance

from .ledger_line import form
from .role_line import ACME, HASH, RoleLine, role_line

CHUNKING = MappingProxyType({"strategy": "recursive", "size_tokens": 16, "overlap_tokens": 0})


@dataclass
class ReembeddedLine(RoleLine):
    """``stalled``: stages of which nothing is worked on."""

    stalled: set[str] = field(default_factory=set)
    maintenance: Any = None

    def begin(self, model: str = "hash-384", **options: Any) -> ReembeddingInfo:
        chunking = options.pop("chunking", CHUNKING)
        terms = Terms(**{"keep_s": 3_600.0, **options})
        chosen = NewGeneration(model, int(model.partition("-")[2]), "cosine", "none", chunking)
        return begin(self.catalog, self.current(), chosen, terms=terms, now=time.time())

    def current(self) -> CollectionInfo:
        return get_collection(self.catalog, tenant=ACME, name="docs")

    def info(self) -> ReembeddingInfo:
        found = find_reembedding(self.catalog, self.collection.id)
        assert found is not None
        return found

    def step(self) -> None:
        """Let every role that is not stalled work on what is due now."""
        for stage in ("chunk", "embed", "check"):
            if stage in self.stalled:
                continue
            if stage == "chunk":
                form(self.catalog, ledger.Forming(2), now=time.time())
            for batch in ledger.take_ready(
                self.catalog, stage=stage, now=time.time() + 60.0, limit=4, resend_after_s=60.0
            ):
                {"chunk": self.chunker.chunk, "embed": self.embedding.embed, "check": self.maintenance.check}[stage](
                    batch.id
                )
        if "index" not in self.stalled:
            self.publish()

    def until(self, *states: str) -> ReembeddingInfo:
        """Work until the re-embedding is in one of these states."""
        deadline = time.monotonic() + 60
        while (info := self.info()).state not in states:
            assert time.monotonic() < deadline, info
            self.step()
        return info

    def until_caught_up(self) -> None:
        """Work until the one that follows holds what the other one does, however long it might rest."""
        deadline = time.monotonic() + 60
        while not self.info().caught_up:
            assert time.monotonic() < deadline, self.info()
            with self.catalog.write() as connection:
                wake(connection, self.info().id, at=time.time())
            self.step()

    def found(self) -> list[Hit]:
        """Return every chunk that a search of the collection finds."""
        generation = self.current().generation
        snapshots = wiring.new_snapshots(self.components.settings, self.catalog, self.components.objects)
        try:
            with snapshots.get(ACME, generation.id) as snapshot:
                return snapshot.search(np.ones(generation.dimensions), k=1_000, now=time.time())
        finally:
            snapshots.close()

    def served(self) -> dict[str, list[str]]:
        """Return the texts that a search of the collection finds, by source."""
        texts: dict[str, list[str]] = {}
        for hit in self.found():
            texts.setdefault(hit.document.source, []).append(hit.text)
        return {source: sorted(some) for source, some in texts.items()}

    def records(self) -> dict[str, DocumentRecord]:
        return {hit.document.source: hit.document for hit in self.found()}

    def found_of(self, source: str) -> list[Hit]:
        """Return the chunks of one document, in the order of its text."""
        return sorted((hit for hit in self.found() if hit.document.source == source), key=lambda hit: hit.ordinal)

    def original(self, source: str) -> list[str]:
        """Return the text that was submitted."""
        record = self.records()[source]
        told = record.original
        assert told is not None
        data = self.components.objects.get_range(
            told["pack"], offset=told["pack_offset"], size_bytes=told["size_bytes"]
        )
        return [data.decode()]

    def _named(self, source: str) -> DocumentInfo:
        listed = list_documents(self.catalog, tenant=ACME, collection_id=self.collection.id, limit=100)
        return next(one for one in listed if one.source == source)

    def remove(self, *sources: str) -> None:
        remove_documents(self.catalog, **self.place, sources=sources, now=time.time())

    def update(self, source: str, **change: Any) -> None:
        named = {"document_id": self._named(source).id, "change": DocumentChange(**change)}
        update_document(self.catalog, **self.place, **named, now=time.time())

    def trim(self, source: str, ordinal: int) -> None:
        """Take a chunk out, as somebody does who has just found it."""
        record = self.records()[source]
        place = self.place | {"generation_id": self.current().generation.id}
        chunk = LocatedChunk(DocumentId(record.document_id), record.text_version, ordinal)
        remove_chunks(self.catalog, **place, chunks=[chunk], now=time.time())


@contextmanager
def reembedded_line(folder: Path, *, embedding: Mapping[str, Any] = HASH, **options: Any) -> Iterator[ReembeddedLine]:
    with role_line(folder, seed=1, kind=ReembeddedLine, embedding=embedding, **options) as line:
        line.maintenance = Maintenance(line.components.settings, liveness=Liveness())
        line.maintenance.open()
        yield line
        line.maintenance.close()
