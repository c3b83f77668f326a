"""Hits: the best rows of several segments as one list, with what a caller wants to know of each.

It does not search; it only decodes the rows that made it into the list.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .ids import ChunkId
from .readers import Found
from .rows import DocumentRecord
from .segments import OpenSegment


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
    scores = np.concatenate([each.scores for _, each in found])
    rows = np.concatenate([each.rows for _, each in found])
    chunk_ids = np.concatenate([segment.chunk_ids[each.rows] for segment, each in found])
    owners = np.repeat(np.arange(len(found)), [len(each.rows) for _, each in found])
    best = np.lexsort((chunk_ids, -scores))[:k]
    chosen = zip(owners[best].tolist(), rows[best].tolist(), scores[best].tolist(), strict=True)
    return [_hit(found[owner][0], row=row, score=score) for owner, row, score in chosen]


def _hit(segment: OpenSegment, *, row: int, score: float) -> Hit:
    rows = segment.rows
    page: int = rows.page.item(row)
    return Hit(
        chunk_id=ChunkId(segment.chunk_ids.item(row)),
        score=score,
        document=rows.documents[rows.document.item(row)],
        ordinal=rows.ordinal.item(row),
        start=rows.start.item(row),
        end=rows.end.item(row),
        page=None if page < 0 else page,
        heading=rows.heading(row),
        text=rows.text(row),
    )
