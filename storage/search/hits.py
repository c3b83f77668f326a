"""Hits: the best rows of several segments as one list, with what a caller wants to know of each.

It does not search; it only decodes the rows that made it into the list.
"""

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
            },
        }


def best_hits(found: Sequence[tuple[OpenSegment, Found]], *, k: int) -> list[Hit]:
    """Return the ``k`` best of all that was found, best first; equal scores in the order of chunk ids."""
    if not found:
        return []
    parts = [(each.rows, each.scores, segment.chunk_ids[each.rows]) for segment, each in found]
    rows, scores, chunk_ids = parts[0] if len(parts) == 1 else map(np.concatenate, zip(*parts, strict=True))
    best = _best(scores, chunk_ids, k=k)
    if len(found) == 1:
        return _hits(found[0][0], rows=rows[best], scores=scores[best].tolist())
    owners = np.repeat(np.arange(len(found)), [len(part[0]) for part in parts])[best].tolist()
    rows, told = rows[best], scores[best].tolist()
    hits: dict[int, Hit] = {}
    for owner in dict.fromkeys(owners):
        places = [place for place, other in enumerate(owners) if other == owner]
        made = _hits(found[owner][0], rows=rows[places], scores=[told[place] for place in places])
        hits |= zip(places, made, strict=True)
    return [hits[place] for place in range(len(best))]


def _best(scores: NDArray[np.float32], chunk_ids: NDArray[np.uint64], *, k: int) -> NDArray[np.int64]:
    """Return the places of the ``k`` best scores, best first; equal ones in the order of chunk ids."""
    first = scores[: k + 1]
    if (first[1:] < first[:-1]).all() and (scores[k + 1 :] <= first[-1]).all():  # so it is with one segment, mostly
        return np.arange(min(k, len(scores)))  # lexsort would let go of the GIL, and wait for it
    return np.lexsort((chunk_ids, -scores))[:k]


def _hits(segment: OpenSegment, *, rows: NDArray[np.int64], scores: list[float]) -> list[Hit]:
    """Decode rows of one segment: a few gathers for all of them, then only Python's own numbers."""
    stored = segment.rows
    columns = (segment.chunk_ids, stored.ordinal, stored.start, stored.end, stored.page)
    chunk_ids, ordinals, starts, ends, pages = (column[rows].tolist() for column in columns)
    texts, headings, records = segment.shown(rows)
    told = [heading or None for heading in headings]
    places = [None if page < 0 else page for page in pages]
    # Made of columns: hit by hit, and field by field, takes three times as long.
    return list(
        map(Hit._make, zip(chunk_ids, scores, records, ordinals, starts, ends, places, told, texts, strict=True))
    )
