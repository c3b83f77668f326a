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
    "dropped",
]


class FormerDeath(Answer):
    """What a document failed of before it was retried."""

    stage: str | None
    error_code: str | None
    error: str | None
    attempts: int | None
    first_attempt_at: float | None
    last_attempt_at: float | None
    died_at: float | None
    retries: int = Field(description="how often it was retried so far")


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
    attempts: int | None = Field(default=None, description="at the stage where it failed")
    first_attempt_at: float | None = Field(default=None, description="of one that failed: in any stage")
    last_attempt_at: float | None = None
    former_death: FormerDeath | None = Field(default=None, description="kept after a retry until it is indexed")
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
