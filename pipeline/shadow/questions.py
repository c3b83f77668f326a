"""What two generations are asked: recorded searches, else sentences out of the collection's own chunks."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from penstock.storage.catalog.recorded_queries import RecordedQuery
from penstock.storage.errors import StorageError
from penstock.storage.search.samples import SampledChunk, sampled_chunks
from penstock.storage.search.versions import Snapshot
from penstock.storage.segments.fields import Filter

from ..errors import InvalidFilter
from ..filters import parse_filter

SHORTEST_WORDS, LONGEST_WORDS = 4, 24
_SENTENCE_ENDS = re.compile(r"(?<=[.!?。])\s+|\n{2,}")


@dataclass(frozen=True)
class Question:
    """A text to search for, and the filter that its asker used."""

    text: str
    filter: Filter | None
    origin: Literal["recorded", "sampled"]


def recorded_questions(recorded: Sequence[RecordedQuery]) -> list[Question]:
    """Return what was recorded as questions; a search whose filter this program does not read any more is left out."""
    return [question for one in recorded if (question := _replayed(one)) is not None]


def sampled_questions(snapshot: Snapshot, *, count: int, now: float, random: np.random.Generator) -> list[Question]:
    """Return up to ``count`` different sentences of random chunks; a title where a chunk has no sentence.

    The snapshot is held by the caller. Raises Damaged.
    """
    found: dict[str, Question] = {}
    for chunk in sampled_chunks(snapshot, rows=2 * count, now=now, random=random):
        if len(found) == count:
            break
        if (text := _asked(chunk, random)) is not None:
            found.setdefault(text, Question(text, None, "sampled"))
    return list(found.values())


def _replayed(one: RecordedQuery) -> Question | None:
    try:
        return Question(one.text, None if one.filter is None else parse_filter(one.filter), "recorded")
    except (InvalidFilter, StorageError):
        return None


def _asked(chunk: SampledChunk, random: np.random.Generator) -> str | None:
    sentences = list(_sentences(chunk.text))
    if sentences:
        return sentences[int(random.integers(len(sentences)))]
    if chunk.title and chunk.title.strip():
        return chunk.title.strip()
    return " ".join(chunk.text.split()[:LONGEST_WORDS]) or None


def _sentences(text: str) -> Iterator[str]:
    """Yield what reads like a sentence. Of a longer one the first words; what is shorter says too little."""
    for sentence in _SENTENCE_ENDS.split(text):
        words = sentence.split()
        if len(words) >= SHORTEST_WORDS:
            yield " ".join(words[:LONGEST_WORDS])
