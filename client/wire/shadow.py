"""The shadow check: what is asked of two generations of a collection, and what came of it."""

from typing import Literal

from pydantic import Field

from .messages import Answer, Request


class ShadowQuery(Request):
    """What is left out is as the server's settings of ``[shadow]`` have it; null where that means: not looked at."""

    old: str | None = Field(default=None, max_length=64, description="generation; default: the one that is searched")
    new: str | None = Field(default=None, max_length=64, description="generation; default: the newest other one")
    queries: int | None = Field(default=None, ge=1, le=10_000)
    min_queries: int | None = Field(default=None, ge=1, le=10_000)
    timeout_s: float | None = Field(default=None, gt=0, le=600)
    min_overlap: float | None = Field(default=None, ge=0, le=1)
    min_rank_agreement: float | None = Field(default=None, ge=0, le=1)
    max_ndcg_drop: float | None = Field(default=None, ge=0, le=1)
    max_slowdown: float | None = Field(default=None, gt=0)


class ShadowLatency(Answer):
    """Of a search, by text, one at a time, in milliseconds. Null: nothing was searched."""

    p50_ms: float | None
    p95_ms: float | None
    embedding_p50_ms: float | None


class ShadowSide(Answer):
    """One of the two generations."""

    generation: str
    model: str
    dimensions: int
    quantization: str
    version: int
    chunks: int
    latency: ShadowLatency
    ndcg: float | None = Field(description="mean nDCG@10 over the judged questions")
    unanswered: int = Field(description="questions that only the other generation could answer")
    because: str | None = Field(description="why, of the first of these")


class ShadowThresholds(Answer):
    """Null: not looked at."""

    min_overlap: float | None
    min_rank_agreement: float | None
    max_ndcg_drop: float | None
    max_slowdown: float | None
    min_queries: int


class ShadowReport(Answer):
    """Whether the new generation may take over, why not, and the figures behind that."""

    passed: bool
    reasons: list[str] = Field(description="why it is refused; empty when it is not")
    notes: list[str] = Field(description="what to know beside the figures")
    compared: Literal["passages", "documents"]
    k: int
    recorded: int = Field(description="recorded searches that were compared")
    sampled: int = Field(description="likewise sentences out of the collection's own chunks")
    by_vector: int = Field(description="recorded searches by vector, which no other model can answer")
    overlap: float | None = Field(description="mean share of the first ten hits that both find")
    least_overlap: float | None = Field(description="a tenth of the questions has this or less")
    rank_agreement: float | None = Field(description="mean rank-biased overlap of the first ten hits, p = 0.9")
    judged: int = Field(description="questions with judgements that were asked")
    old: ShadowSide
    new: ShadowSide
    thresholds: ShadowThresholds
    took_s: float
