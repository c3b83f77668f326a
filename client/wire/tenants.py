"""Tenants: units of isolation, each with a share of the workers; and pauses."""

from pydantic import Field

from .messages import Answer, Budget, Name, Request

LEAST_WEIGHT, MOST_WEIGHT = 0.01, 100.0


class NewTenant(Request):
    name: Name


class TenantChange(Request):
    """What is left out stays as it is; null brings the default back."""

    weight: float | None = Field(
        default=None,
        ge=LEAST_WEIGHT,
        le=MOST_WEIGHT,
        description="its share of the workers beside those of the others; default: 1",
    )
    max_backlog_documents: int | None = Field(default=None, ge=1, le=10**15)
    max_backlog_bytes: int | None = Field(default=None, ge=1, le=10**18)
    monthly_budget_usd: Budget | None = Field(
        default=None, description="what calls of providers may cost it in a month (UTC); null: whatever they cost"
    )
    record_queries: bool | None = Field(
        default=None,
        description="whether some of its searches may be recorded, where the server does; false forgets those that "
        "were; default: true",
    )


class Tenant(Answer):
    name: Name
    created_at: float
    weight: float = Field(default=1.0, description="its share of the workers beside those of the others")
    max_backlog_documents: int | None = Field(
        default=None, description="null: limits.max_backlog_documents of the server"
    )
    max_backlog_bytes: int | None = Field(default=None, description="null: limits.max_backlog_bytes of the server")
    monthly_budget_usd: float | None = Field(
        default=None, description="what calls of providers may cost it in a month (UTC); null: whatever they cost"
    )
    month_spent_usd: float = Field(default=0.0, description="what they cost it this month, as far as prices are known")
    month_reserved_usd: float = Field(default=0.0, description="set aside for calls under way")
    paused_at: float | None = Field(default=None, description="since then nothing is begun for it; null: it goes on")
    record_queries: bool = Field(default=True, description="whether some of its searches may be recorded")
    waiting_documents: int = Field(default=0, description="accepted documents not yet in a batch")
    waiting_bytes: int = 0


class TenantList(Answer):
    data: list[Tenant]


class Pause(Answer):
    """What is paused: everything since ``paused_at``, and ``tenants`` on their own."""

    paused_at: float | None
    tenants: list[Name]
