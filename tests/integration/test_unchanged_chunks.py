"""A document that changed a little: only the chunks that changed are embedded, with no cache to help."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock.storage.errors import Damaged
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.removals import remove_documents
from penstock.storage.objects.local import LocalObjects

from ..role_line import RoleLine, role_line

PAGES, PARAGRAPHS_OF_PAGE = 100, 5
NAMES = ("river", "penstock", "turbine", "spillway", "sluice", "forebay", "tailrace")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[RoleLine]:
    with role_line(tmp_path, seed=1, size_tokens=64) as made:
        yield made


@pytest.fixture
def embedded(line: RoleLine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the model is given."""
    seen: list[str] = []
    embedder = line.embedding._components.embedders.of("hash-256", 256)
    embed = embedder.embed_passages

    def spied(texts):
        seen.extend(texts)
        return embed(texts)

    monkeypatch.setattr(embedder, "embed_passages", spied)
    return seen


def paragraphs() -> list[str]:
    """Return a hundred pages of them, no two alike and of several lengths."""
    return [
        " ".join(
            f"The {NAMES[(number + i) % 7]} of page {number // PARAGRAPHS_OF_PAGE} carries {number * i} tons of water."
            for i in range(1, 2 + number % 5)
        )
        for number in range(PAGES * PARAGRAPHS_OF_PAGE)
    ]


def submit(line: RoleLine, text: list[str], *, source: str = "book"):
    accepted = line.accept([SubmittedDocument(source, f"{source}.txt", "\n\n".join(text).encode())])
    line.drain()
    return line.job(accepted)


def check_vectors(line: RoleLine) -> None:
    """Check that the vector of every chunk is that of its text, by its score."""
    hits = line.hits()
    embedder = line.embedding._components.embedders.of("hash-256", 256)
    query = np.ones(256) / 16
    expected = embedder.embed_passages([hit.text for hit in hits]) @ query
    assert np.allclose([hit.score for hit in hits], expected, atol=1e-5)


@pytest.mark.parametrize("where", [0, PAGES * PARAGRAPHS_OF_PAGE // 2, -1])
def test_one_changed_paragraph_of_a_hundred_pages_embeds_only_its_chunks(line, embedded, where):
    text = paragraphs()
    first = submit(line, text)
    assert (first.chunks_reused, len(embedded)) == (0, first.chunks_indexed)
    embedded.clear()
    text[where] = "Nobody had written this sentence before. " + text[where]

    changed = submit(line, text)

    assert 1 <= len(embedded) <= 5
    assert any("Nobody had written" in one for one in embedded)
    assert changed.chunks_reused == changed.chunks_indexed - len(embedded) > 200
    assert changed.cache_hits == 0
    check_vectors(line)


@pytest.mark.parametrize("where", [0, PAGES * PARAGRAPHS_OF_PAGE // 2])
def test_an_inserted_or_deleted_paragraph_does_not_shift_what_follows(line, embedded, where):
    text = paragraphs()
    submit(line, text)
    embedded.clear()

    submit(line, [*text[:where], "A paragraph that was not there before, between two that were.", *text[where:]])
    assert 1 <= len(embedded) <= 8
    embedded.clear()
    submit(line, [*text[:where], *text[where + 2 :]])
    assert len(embedded) <= 8


def test_an_older_version_that_is_gone_by_then_costs_an_embedding_and_nothing_else(line, embedded):
    text = paragraphs()[:40]
    submit(line, text)
    embedded.clear()
    remove_documents(line.catalog, **line.place, sources=["book"], now=2.0)
    line.drain()

    again = submit(line, text)

    assert (again.documents, again.chunks_reused, len(embedded)) == ({"indexed": 1}, 0, again.chunks_indexed)
    check_vectors(line)


def test_a_version_that_is_replaced_between_chunking_and_embedding_gives_what_it_has_or_nothing(line, embedded):
    text = paragraphs()[:40]
    submit(line, text)
    line.accept([SubmittedDocument("book", "book.txt", "\n\n".join(["Another beginning.", *text]).encode())])
    line.send()
    line.work()  # chunked, with the first version in the index
    remove_documents(line.catalog, **line.place, sources=["book"], now=2.0)
    accepted = line.accept([SubmittedDocument("book", "book.txt", "\n\n".join(["A third one.", *text]).encode())])
    line.drain()

    assert line.job(accepted).documents == {"indexed": 1}
    assert sum(hit.text.startswith("A third one.") for hit in line.hits()) == 1
    check_vectors(line)


@pytest.mark.parametrize("error", [Damaged("rotten"), OSError("disk")])
def test_a_segment_that_cannot_be_read_costs_an_embedding_and_nothing_else(line, embedded, monkeypatch, error):
    text = paragraphs()[:40]
    submit(line, text)
    embedded.clear()
    objects = line.embedding._components.objects
    assert isinstance(objects, LocalObjects)
    local_path = objects.local_path

    def failing(name, **options):
        if name.endswith(".segment"):
            raise error
        return local_path(name, **options)

    monkeypatch.setattr(objects, "local_path", failing)

    changed = submit(line, ["Another beginning.", *text])

    assert (changed.documents, changed.chunks_reused) == ({"indexed": 1}, 0)
    assert len(embedded) == changed.chunks_indexed


def test_reused_chunks_are_counted_for_the_job_they_belong_to(line, embedded):
    text = paragraphs()[:40]
    submit(line, text, source="old")
    changed = line.accept([SubmittedDocument("old", "old.txt", "\n\n".join([*text, "The end."]).encode())])
    new = line.accept([SubmittedDocument("new", "new.txt", "\n\n".join(text).encode())])
    line.drain()

    assert line.job(changed).chunks_reused > 0
    assert line.job(new).chunks_reused == 0
