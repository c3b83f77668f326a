"""Usage: what calls of providers cost."""

from typing import Literal

from pydantic import Field

from .messages import Answer, Name

UsageGroup = Literal["day", "tenant", "collection", "job", "model"]


class UsageSum(Answer):
    """A price that nobody knows is null, never 0."""

    calls: int = Field(description="requests to a provider, or runs of a model that runs here")
    failed_calls: int = Field(description="of those: brought nothing, and were paid for or may have been")
    tokens: int = Field(description="of all calls, as the provider counts them where it tells")
    cost_usd: float | None = Field(description="price in US dollars; null when that of some of the tokens is not known")
    priced_usd: float = Field(description="price of those tokens whose price is known")
    unpriced_tokens: int = Field(description="tokens whose price is not known")
    cache_hits: int = Field(description="texts whose vectors were in the cache")
    saved_tokens: int = Field(description="their tokens")
    saved_usd: float | None = Field(description="what they would have cost; null when some of it is not known")


class UsageRow(UsageSum):
    """Costs of one day, tenant, collection, job or model, or of several of these together; null: not asked for."""

    day: str | None = Field(default=None, description="in UTC, as in 2026-11-30")
    tenant: Name | None = None
    collection: Name | None = Field(default=None, description="its name, also when it is deleted by now")
    collection_id: str | None = None
    job: str | None = Field(default=None, description="asked for and null: of no job, but of searches")
    model: str | None = None


class Usage(Answer):
    """By day in order of days, else what cost most first. ``has_more``: there are more rows than were asked for."""

    by: list[UsageGroup]
    data: list[UsageRow]
    total: UsageSum
    has_more: bool
