"""Jobs: what was asked for together, and how far it is."""

from typing import Literal

from pydantic import Field

from .messages import Answer, Name

JobState = Literal["running", "done", "cancelled"]


class Job(Answer):
    id: str
    collection: Name
    state: JobState
    created_at: float
    finished_at: float | None
    documents: dict[str, int] = Field(description="documents of this job by state")
    chunks_total: int
    chunks_embedded: int
    chunks_indexed: int
    cache_hits: int = Field(description="chunks whose vectors were in the cache")
    unchanged: int = Field(description="submitted documents that were already here")
    token: str | None = Field(description="`min_token` of a search that must see what this job has indexed so far")

    @property
    def failed(self) -> int:
        return self.documents.get("failed", 0)


class JobList(Answer):
    """Newest first. ``last_id`` as ``after`` gives the next page."""

    data: list[Job]
    has_more: bool
    last_id: str | None
