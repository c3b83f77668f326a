"""Rows of a snapshot drawn at random, and what they say: to measure searches by, or to ask questions about."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .readers import SegmentReader
from .versions import Snapshot


@dataclass(frozen=True)
class SampledChunk:
    """A chunk that is served: its text, and the title of its document."""

    text: str
    title: str | None


def sampled_rows(
    snapshot: Snapshot, *, rows: int, now: float, random: np.random.Generator
) -> list[tuple[SegmentReader, int]]:
    """Return live rows that are not expired, chosen evenly over all segments and in random order.

    Fewer than ``rows`` where there are fewer. The snapshot is held by the caller.
    """
    readers = list(snapshot.readers.values())
    live = [reader.live_rows(now=now) for reader in readers]
    ends = np.cumsum([len(each) for each in live])
    total = int(ends[-1]) if readers else 0
    chosen = random.choice(total, min(rows, total), replace=False) if total else np.empty(0, np.int64)
    owners = np.searchsorted(ends, chosen, side="right")
    places = chosen - (ends[owners] - [len(live[owner]) for owner in owners])
    return [(readers[owner], int(live[owner][place])) for owner, place in zip(owners, places, strict=True)]


def sampled_chunks(snapshot: Snapshot, *, rows: int, now: float, random: np.random.Generator) -> Iterator[SampledChunk]:
    """Yield what `sampled_rows` drew, read one after the other.

    Raises:
        Damaged: what is read is not what was written.
    """
    for reader, row in sampled_rows(snapshot, rows=rows, now=now, random=random):
        texts, _, documents = reader.segment.shown(np.array([row], np.int64))
        yield SampledChunk(texts[0], documents[0].title)
