"""Searching: the question, and the chunks that were found."""

import base64
import sys
from array import array
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field

from .messages import Answer, Request

Filter = Annotated[
    dict[str, Any] | list[Any] | str,
    Field(description='`{"type": "eq", "key": "lang", "value": "en"}`, nested by `and` and `or`'),
]


def packed_vector(vector: Iterable[float]) -> str:
    """Return a vector as base64 of little-endian float32, a third of its size as JSON numbers."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


class SearchQuery(Request):
    """Exactly one of ``query`` (text) and ``vector`` (numbers, or base64 of little-endian float32)."""

    query: str | None = Field(default=None, min_length=1, max_length=65_536)
    vector: list[float] | str | None = None
    k: int = Field(default=10, ge=1)
    filter: Filter | None = None
    ef: int | None = Field(
        default=None, ge=1, le=4096, description="how wide a graph is searched: higher finds more, slower"
    )
    min_token: str | None = Field(default=None, description="wait until the snapshot covers this token")
    version: int | None = Field(default=None, ge=0, le=10**18, description="search this version of the collection")
    tag: str | None = Field(default=None, min_length=1, max_length=64, description="search the version of this tag")
    as_of: float | str | None = Field(
        default=None,
        description="search what was current, and not expired, at this time: seconds since 1970, or ISO 8601",
    )
    explain: bool = False


class HitDocument(Answer):
    id: str
    source: str
    title: str | None
    metadata: dict[str, Any]
    version: int
    media_type: str
    event_time: float | None = Field(description="when its content happened, in seconds since 1970")
    ingested_at: float = Field(description="when this version of it was accepted, in seconds since 1970")
    expires_at: float | None = Field(description="from then on it is not found, in seconds since 1970")


class Hit(Answer):
    """A chunk that was found. ``start`` and ``end`` are character offsets into the parsed text of the document."""

    chunk_id: int
    score: float = Field(description="higher is better; cosine and dot: inner product, l2: negative squared distance")
    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    document: HitDocument


class SearchResult(Answer):
    hits: list[Hit]
    version: int = Field(description="version of the snapshot that answered; 0 when nothing was published yet")
    token: str
    took_ms: float
    explain: dict[str, Any] | None = None
