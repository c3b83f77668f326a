"""The whole line in one process, its stages in any order: in the end it serves what one request after another would."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.documents import DocumentInfo, list_documents
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.catalog.tables import versions
from penstock.storage.errors import NotFound
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.trims import LocatedChunk, remove_chunks
from penstock.storage.intake.updates import DocumentChange, update_document

from ..role_line import ACME, RoleLine, role_line

SOURCES = [f"s{number}" for number in range(5)]
STEPS = int(os.environ.get("PENSTOCK_TEST_STEPS", "120"))
Served = dict[str, tuple[list[str], dict[str, Any]]]


class Said(NamedTuple):
    """What a document is to say in the end: its paragraphs, each of them a chunk, by their places."""

    text_version: str
    chunks: dict[int, str]
    metadata: dict[str, Any]


@dataclass
class Line(RoleLine):
    """Producers who change their minds, and repeat themselves. ``model``: by source; ``past``: what was submitted."""

    model: dict[str, Said] = field(default_factory=dict)
    past: list[list[SubmittedDocument]] = field(default_factory=list)

    def put(self) -> None:
        chosen = self.dice.sample(SOURCES, self.dice.randint(1, 3))
        metadata = {"n": self.dice.randrange(5)}
        texts = {source: self.paragraphs(source) for source in chosen}
        submitted = [
            SubmittedDocument(source, f"{source}.txt", "\n\n".join(text).encode(), metadata=metadata)
            for source, text in texts.items()
        ]
        for one in self.accept(submitted, idempotency_key=str(len(self.past))).documents:
            if one.version_id is not None:  # else it says that already, apart from what was trimmed
                self.model[one.source] = Said(one.version_id, dict(enumerate(texts[one.source])), metadata)
        self.past.append(submitted)

    def repeat(self) -> None:
        """Submit once more what was submitted at some time, as a client does that got no answer."""
        if self.past:
            number = self.dice.randrange(len(self.past))
            assert self.accept(self.past[number], idempotency_key=str(number)).replayed

    def paragraphs(self, source: str) -> list[str]:
        """Return a few out of a few: most are in the version before too, often in another place."""
        said = self.dice.sample("abcd", self.dice.randint(1, 3))
        return [f"{source} says {word} in most words of one chunk." for word in said]

    def delete(self) -> None:
        chosen = self.dice.sample(SOURCES, self.dice.randint(1, 2))
        remove_documents(self.catalog, **self.place, sources=chosen, now=time.time())
        for source in chosen:
            self.model.pop(source, None)

    def update(self) -> None:
        source, patch = self.dice.choice(SOURCES), {self.dice.choice("nm"): self.dice.choice([None, 7, 8])}
        for info in self.listed(source):
            options = {"document_id": info.id, "change": DocumentChange(patch=patch), "now": time.time()}
            with suppress(NotFound):
                update_document(self.catalog, **self.place, **options)
                said = self.model[source]
                metadata = {k: v for k, v in {**said.metadata, **patch}.items() if v is not None}
                self.model[source] = Said(self.text_version(source, said), said.chunks, metadata)

    def text_version(self, source: str, said: Said) -> str:
        """Return the version that brings the text: one that was still on its way starts again as the update."""
        (info,) = self.listed(source)
        with self.catalog.read() as connection:
            action = connection.scalar(sa.select(versions.c.action).where(versions.c.id == info.version_id))
        return info.version_id if action == "put" else said.text_version

    def listed(self, source: str) -> list[DocumentInfo]:
        return list_documents(self.catalog, tenant=ACME, collection_id=self.collection.id, source=source, limit=1)

    def trim(self) -> None:
        """Take out a chunk that is served, of whichever version; one always stays."""
        hits = self.hits()
        if not hits:
            return
        hit = self.dice.choice(hits)
        place = LocatedChunk(hit.document.document_id, hit.document.text_version, hit.ordinal)
        said = self.model.get(hit.document.source)
        if said is not None and said.text_version == place.text_version_id:
            if said.chunks.keys() <= {hit.ordinal}:
                return
            said.chunks.pop(hit.ordinal, None)
        remove_chunks(self.catalog, **self.place, chunks=[place], now=time.time())

    def served(self) -> Served:
        found: Served = {}
        for hit in sorted(self.hits(), key=lambda hit: (hit.document.source, hit.start)):
            found.setdefault(hit.document.source, ([], hit.document.metadata))[0].append(hit.text)
        return found

    def wanted(self) -> Served:
        ordered = {source: [said.chunks[at] for at in sorted(said.chunks)] for source, said in self.model.items()}
        return {source: (text, self.model[source].metadata) for source, text in ordered.items()}


@pytest.fixture(params=[None, 1, 2])
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    chosen = os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32))
    seed = int(chosen if request.param is None else request.param)
    print(f"PENSTOCK_TEST_SEED={seed}")
    with role_line(tmp_path, seed=seed, kind=Line) as made:
        yield made


def test_documents_are_served_as_if_one_request_had_followed_the_other(line):
    for step in range(STEPS):
        asked = [line.put, line.put, line.delete, line.update, line.update, line.trim, line.repeat]
        line.dice.choice([*asked, line.send, line.send, line.work, line.work, line.work, line.publish, line.publish])()
        if step % 40 == 39:
            line.drain()
            assert line.served() == line.wanted()
    line.drain()

    assert line.served() == line.wanted()
    counted = get_collection(line.catalog, tenant=ACME, name="docs").documents
    assert counted == ({"indexed": len(line.model)} if line.model else {})
    jobs = list_jobs(line.catalog, tenant=ACME, limit=1_000)
    assert {job.state for job in jobs} == {"done"}
    assert not any(job.documents.get("failed") for job in jobs)
    assert sum(job.chunks_reused for job in jobs) > 0
