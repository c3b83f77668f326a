"""The whole line in one process, its stages in any order: in the end it serves what one request after another would."""

import os
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.documents import list_documents
from penstock.storage.catalog.jobs import list_jobs
from penstock.storage.errors import NotFound
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.removals import remove_documents
from penstock.storage.intake.updates import DocumentChange, update_document

from ..role_line import ACME, RoleLine, role_line

SOURCES = [f"s{number}" for number in range(5)]
STEPS = int(os.environ.get("PENSTOCK_TEST_STEPS", "120"))
Served = dict[str, tuple[list[str], dict[str, Any]]]


@dataclass
class Line(RoleLine):
    """Producers who change their minds. ``model``: by source, its paragraphs (each is a chunk) and its metadata."""

    model: Served = field(default_factory=dict)

    def put(self) -> None:
        chosen = self.dice.sample(SOURCES, self.dice.randint(1, 3))
        metadata = {"n": self.dice.randrange(5)}
        texts = {source: self.paragraphs(source) for source in chosen}
        self.accept(
            [
                SubmittedDocument(source, f"{source}.txt", "\n\n".join(text).encode(), metadata=metadata)
                for source, text in texts.items()
            ]
        )
        self.model |= {source: (text, metadata) for source, text in texts.items()}

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
        ask = {"tenant": ACME, "collection_id": self.collection.id, "limit": 1}
        for info in list_documents(self.catalog, source=source, **ask):
            options = {"document_id": info.id, "change": DocumentChange(patch=patch), "now": time.time()}
            with suppress(NotFound):
                update_document(self.catalog, **self.place, **options)
                text, metadata = self.model[source]
                self.model[source] = text, {k: v for k, v in {**metadata, **patch}.items() if v is not None}

    def served(self) -> Served:
        found: Served = {}
        for hit in sorted(self.hits(), key=lambda hit: (hit.document.source, hit.start)):
            found.setdefault(hit.document.source, ([], hit.document.metadata))[0].append(hit.text)
        return found


@pytest.fixture(params=[None, 1, 2])
def line(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Line]:
    chosen = os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32))
    seed = int(chosen if request.param is None else request.param)
    print(f"PENSTOCK_TEST_SEED={seed}")
    with role_line(tmp_path, seed=seed, kind=Line) as made:
        yield made


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
    assert sum(job.chunks_reused for job in jobs) > 0
