"""Documents as their owner sees them."""

from typing import Any, Literal

from pydantic import Field

from .messages import Answer

DocumentState = Literal[
    "queued",
    "chunking",
    "embedding",
    "indexing",
    "indexed",
    "failed",
    "cancelled",
    "superseded",
    "deleting",
    "deleted",
    "expired",
]


class Document(Answer):
    id: str
    source: str
    title: str | None
    filename: str
    media_type: str | None
    size_bytes: int
    metadata: dict[str, Any]
    event_time: float | None
    expires_at: float | None
    version: int = Field(description="number of the newest version, from 1")
    state: DocumentState
    stage: str | None = Field(description="where it failed")
    error_code: str | None
    error: str | None
    chunks: int | None
    created_at: float
    finished_at: float | None
    indexed_version: int | None = Field(description="snapshot version that first served it")
    searchable_version: int | None = Field(
        default=None,
        description="number of the version that searches find: an older one while the newest is on its way",
    )
    searchable_at: float | None = Field(default=None, description="since when they find it")
    job_id: str


class DocumentList(Answer):
    """``last_id`` as ``after`` gives the next page."""

    data: list[Document]
    has_more: bool
    last_id: str | None


class DocumentName(Answer):
    id: str
    source: str
