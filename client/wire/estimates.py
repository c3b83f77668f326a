"""Estimates: what an ingest would take, before anything is submitted."""

from pydantic import Field

from .messages import Answer


class Unreadable(Answer):
    source: str
    code: str
    reason: str


class Estimate(Answer):
    """What submitting these documents now would take. Nothing was stored, and nothing is remembered of it."""

    model: str
    documents: int = Field(description="documents that were looked at")
    unchanged: int = Field(description="of those: here already, just so; they cost nothing")
    failed: int = Field(description="of those: could not be read, and would fail")
    unreadable: list[Unreadable] = Field(default=[], description="the first of those, with their reasons")
    chunks: int = Field(description="chunks of the others")
    chunks_reused: int = Field(description="of those: the version of their document that is served has them too")
    cache_hits: int = Field(description="of those: in the cache")
    repeated: int = Field(
        description="of those: the same text as another that would be embedded, which is paid for once"
    )
    embedded: int = Field(description="texts that the model would be given")
    tokens: int = Field(description="tokens of these texts")
    price_per_million_tokens: float | None = Field(description="in US dollars; null when it is not known")
    cost_usd: float | None = Field(description="null when the price is not known")
    duration_s: float | None = Field(
        description="how long the last jobs in this model took for so many tokens; null when there were none"
    )
    texts: str | None = Field(
        default=None,
        description="with `texts`: base64 of 12 bytes for each text that the model would be given, 8 that tell it from "
        "others and its tokens as a little-endian 32-bit number; texts that several answers name are embedded once",
    )
