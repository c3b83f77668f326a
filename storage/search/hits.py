"""Hits: the best rows of several segments as one list, with what a caller wants to know of each.

It does not search; it only decodes the rows that made it into the list.
"""

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..ids import ChunkId
from ..segments.records import DocumentRecord
from ..segments.segment import OpenSegment
from .found import Found


class Hit(NamedTuple):
    """A chunk that was found.

    Attributes:
        score: higher is better; ``cosine`` and ``dot``: the inner product, ``l2``: the negated squared distance.
        start: character offset into the parsed text of the document; ``end`` is exclusive.
        ordinal: position of the chunk in its document.
        page: from 1; None where the format has no pages.
    """

    chunk_id: ChunkId
    score: float
    document: DocumentRecord
    ordinal: int
    start: int
    end: int
    page: int | None
    heading: str | None
    text: str

    def described(self) -> dict[str, Any]:
        """Return the hit as every interface tells it, ready for JSON."""
        document = self.document
        return {
            "chunk_id": self.chunk_id,
            "score": self.score,
            "text": self.text,
            "start": self.start,
            "end": self.end,
            "page": self.page,
            "heading": self.heading,
            "document": {
                "id": document.document_id,
                "source": document.source,
                "title": document.title,
                "metadata": document.metadata,
                "version": document.number,
                "media_type": document.media_type,
                "event_time": document.event_time,
                "ingested_at": document.ingested_at,
                "expires_at": document.expires_at,
            },
        }


def best_hits(found: Sequence[tuple[OpenSegment, Found]], *, k: int) -> list[Hit]:
    """Return the ``k`` best of all that was found, best first; equal scores in the order of chunk ids."""
    if not found:
        return []
    if len(found) == 1:
        ((segment, only),) = found
        scores = only.scores[: k + 1].tolist()
        if all(map(operator.gt, scores, scores[1:])):  # so it is mostly; lexsort would let go of the GIL, and wait
            return _hits(segment, only.rows[:k], scores=scores[:k], texts=only.texts_of(range(len(scores[:k]))))
    firsts = np.cumsum([0, *(len(each.rows) for _, each in found)])
    scores = np.concatenate([each.scores for _, each in found])
    chunk_ids = np.concatenate([segment.chunk_ids[each.rows] for segment, each in found])
    best = np.lexsort((chunk_ids, -scores))[:k]
    owners = firsts.searchsorted(best, "right") - 1
    hits: dict[int, Hit] = {}
    for owner in dict.fromkeys(owners.tolist()):
        segment, each = found[owner]
        own = np.flatnonzero(owners == owner)
        places = best[own] - firsts[owner]
        rows, told = each.rows[places], each.scores[places].tolist()
        hits |= zip(own.tolist(), _hits(segment, rows, scores=told, texts=each.texts_of(places.tolist())), strict=True)
    return [hits[place] for place in range(len(best))]


def _hits(
    segment: OpenSegment, rows: NDArray[np.int64], *, scores: list[float], texts: Sequence[bytes] | None
) -> list[Hit]:
    """Decode rows of one segment: a few gathers for all of them, then only Python's own numbers."""
    stored = segment.rows
    columns = (segment.chunk_ids, stored.ordinal, stored.start, stored.end, stored.page)
    chunk_ids, ordinals, starts, ends, pages = (column[rows].tolist() for column in columns)
    shown, headings, records = segment.shown(rows, texts=texts)
    told = [heading or None for heading in headings]
    paged = [None if page < 0 else page for page in pages]
    # Made of columns: hit by hit, and field by field, takes three times as long.
    return list(
        map(Hit._make, zip(chunk_ids, scores, records, ordinals, starts, ends, paged, told, shown, strict=True))
    )
