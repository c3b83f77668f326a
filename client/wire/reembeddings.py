"""Re-embeddings: a collection that is embedded again, with another model or cut otherwise, while it serves."""

from typing import Any, Literal

from pydantic import Field

from .collections import Chunking, Quantization
from .jobs import HeldUp
from .messages import Answer, Budget, Request

ReembeddingState = Literal[
    "copying",
    "checking",
    "ready",
    "refused",
    "switching",
    "switched",
    "returning",
    "returned",
    "done",
    "cancelled",
]


class NewReembedding(Request):
    """What is left out stays as the collection has it."""

    model: str | None = Field(default=None, min_length=1, max_length=128)
    dimensions: int | None = Field(
        default=None, ge=256, le=4096, description="of Matryoshka models, and such as this server does not know"
    )
    chunking: Chunking | None = Field(default=None, description="how documents are cut; they are cut anew then")
    quantization: Quantization | None = None
    switch: bool = Field(default=True, description="whether the new generation takes over by itself, if it passes")
    force: bool = Field(default=False, description="take over whatever the check says")
    afresh: bool = Field(default=False, description="also where nothing would be different")
    economy: bool = Field(
        default=False, description="for half the price, within a day, where the model's provider takes orders"
    )
    budget_usd: Budget | None = Field(
        default=None, description="US dollars that it may cost in all; it stops before it would cost more"
    )
    keep_s: float | None = Field(
        default=None, ge=0, le=10_000_000_000, description="how long the former generation is kept after the switch"
    )


class ReembeddingChange(Request):
    budget_usd: Budget | None = Field(
        description="what the re-embedding may cost in all, in US dollars; null: whatever it costs"
    )


class Switch(Request):
    force: bool = Field(default=False, description="although the check refused the new generation")


class ReembeddingSide(Answer):
    """One of the two generations."""

    id: str
    model: str
    dimensions: int
    quantization: Quantization
    chunking: dict[str, Any]
    version: int
    chunks: int


class Reembedding(Answer):
    """``serving`` is the generation that answers searches, ``other`` the one that follows it."""

    id: str
    state: ReembeddingState
    serving: ReembeddingSide
    other: ReembeddingSide
    recuts: bool = Field(description="whether documents are cut anew from what was submitted")
    caught_up: bool = Field(description="whether the other one holds what the serving one did a moment ago")
    chunks_total: int = Field(description="of what was there when it began")
    chunks_copied: int
    documents_copied: int
    cache_hits: int = Field(description="chunks whose vectors were in the cache")
    chunks_reused: int = Field(description="chunks whose vectors the other generation had")
    embedded_tokens: int
    cost_usd: float | None = Field(description="null: the price is not known")
    budget_usd: float | None = Field(default=None, description="more it may not cost; null: whatever it costs")
    report: dict[str, Any] | None = Field(description="of the check before the switch")
    paused_at: float | None
    error: str | None = Field(description="why it stands still, if nobody paused it")
    held_up: HeldUp | None
    created_at: float
    switched_at: float | None
    kept_until: float | None = Field(description="when the generation that does not serve is let go")
    finished_at: float | None
