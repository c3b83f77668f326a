"""An order in its parts: the requests of each batch, whose names lead back to its chunks, and what came for them."""

from dataclasses import dataclass, field

import numpy as np

from penstock.pipeline.embedding.embedder import Vectors
from penstock.pipeline.embedding.orders import MOST_TEXTS, MOST_TOKENS
from penstock.pipeline.requests import in_requests
from penstock.storage.ids import BatchId
from penstock.storage.ledger.members import Member
from penstock.storage.segments.rows import Rows


@dataclass(frozen=True)
class Request:
    """One line of an order: the texts of ``rows`` of a batch."""

    name: str
    batch_id: BatchId
    rows: tuple[int, ...]


@dataclass
class Parcel:
    """What came for one batch and is not staged yet: by row of its chunks, float32[d], and the ``tokens`` of that.

    ``missing``: its requests, of which each is to be answered.
    """

    member: Member
    missing: int = 0
    tokens: int = 0
    vectors: dict[int, Vectors] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)

    def take(self, request: Request, vectors: Vectors, tokens: int) -> bool:
        """Keep an answer, the first one to each request. Returns whether it was the last of the batch."""
        if request.name in self._seen:
            return False
        self._seen.add(request.name)
        self.tokens += tokens
        self.vectors |= dict(zip(request.rows, np.asarray(vectors, np.float32), strict=True))
        return len(self._seen) == self.missing


def requests_of(member: Member, rows: Rows) -> list[Request]:
    """Return the requests of a batch, always the same: their names must lead back to the rows."""
    asked = [row for row in member.rows if row not in member.repeated]
    requests = in_requests(asked, lambda row: int(rows.tokens[row]), most=MOST_TEXTS, most_size=MOST_TOKENS)
    return [
        Request(f"{member.batch_id}.{number}", member.batch_id, tuple(some)) for number, some in enumerate(requests)
    ]
