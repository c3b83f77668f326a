"""Jobs: what was asked for together, and how far it is."""

from typing import Literal

from pydantic import Field

from .messages import Answer, Budget, Name, Request

JobState = Literal["running", "done", "cancelled"]
UNFINISHED = frozenset({"queued", "chunking", "embedding", "indexing", "deleting", "trimming"})  # states of documents


class HeldUp(Answer):
    """Why something of a job waits by no fault of its documents."""

    paused: bool = Field(
        description="true: until a person has acted, as with a key that is refused; false: it is only tried again "
        "later, or `ordered`"
    )
    reason: str = Field(description="what is wrong, with the setting to change where there is one")
    next_attempt_at: float | None = Field(
        description="when it is tried again; in the past while it is being tried; null: when the budget is raised, or "
        "the order is over"
    )
    ordered: bool = Field(
        default=False, description="it waits for an order at the provider, which may take a day; nothing is wrong"
    )


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
    chunks_expected: int | None = Field(
        default=None, description="guess of `chunks_total` at the end; null while no document is cut"
    )
    chunks_per_s: float | None = Field(
        default=None, description="chunks embedded per second lately; null while nobody can know"
    )
    left_s: float | None = Field(
        default=None, description="seconds until all chunks are embedded at that pace; null while nobody can know"
    )
    cache_hits: int = Field(description="chunks whose vectors were in the cache")
    embedded_tokens: int = Field(default=0, description="tokens of the texts that the model was given")
    cost_usd: float | None = Field(
        default=None, description="their price in US dollars so far; null when the model's price is not known"
    )
    budget_usd: float | None = Field(default=None, description="more it may not cost; null: whatever it costs")
    chunks_reused: int = Field(
        default=0, description="chunks that the version of their document before had too: not embedded again"
    )
    unchanged: int = Field(description="submitted documents that were already here")
    held_up: HeldUp | None = Field(
        default=None, description="why something of it waits although none of its documents is at fault; null: nothing"
    )
    token: str | None = Field(description="`min_token` of a search that must see what this job has indexed so far")

    @property
    def total(self) -> int:
        """How many documents it has."""
        return sum(self.documents.values())

    @property
    def finished(self) -> int:
        """How many of them are over, well or not."""
        return sum(number for state, number in self.documents.items() if state not in UNFINISHED)

    @property
    def failed(self) -> int:
        return self.documents.get("failed", 0)


class JobChange(Request):
    budget_usd: Budget | None = Field(
        description="what the job may cost in all, in US dollars; null: whatever it costs"
    )


class JobList(Answer):
    """Newest first. ``last_id`` as ``after`` gives the next page."""

    data: list[Job]
    has_more: bool
    last_id: str | None
