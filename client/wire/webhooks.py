"""Webhooks: what receivers were told, and what that is signed with."""

from typing import Literal

from pydantic import Field

from .messages import Answer, Name, Request

DeliveryState = Literal["waiting", "sending", "delivered", "dead", "dropped"]


class Delivery(Answer):
    """One webhook. ``id`` is its ``webhook-id``, the same at every attempt."""

    id: str
    job_id: str
    url: str
    state: DeliveryState = Field(description="dead: given up; dropped: there was nothing to tell any more")
    attempts: int
    next_attempt_at: float | None = Field(description="null when it is over")
    status: int | None = Field(description="HTTP status of the last answer")
    error: str | None
    created_at: float
    finished_at: float | None


class DeliveryList(Answer):
    """Newest first. ``last_id`` as ``after`` gives the next page."""

    data: list[Delivery]
    has_more: bool
    last_id: str | None


class WebhookSecret(Answer):
    """Shown once. The secret before it signs too until ``former_until``; null when there was none."""

    secret: str
    created_at: float
    former_until: float | None


class WebhookReceiver(Request):
    """A URL to tell, such as ``https://example.com/hooks/penstock``."""

    url: str = Field(min_length=1, max_length=2048)


class WebhookTaken(Answer):
    """A submission with this ``webhook_url`` would be taken."""

    url: str


class WebhookDefault(Request):
    """Who is told of jobs that name nobody: of one ``collection``, or of the tenant's others. Null: nobody."""

    url: str | None = Field(min_length=1, max_length=2048)
    collection: Name | None = None


class WebhookDefaults(Answer):
    """Who is told of jobs that name nobody: ``url`` of all, unless their collection has another one."""

    url: str | None
    collections: dict[str, str] = Field(description="of those that have one of their own, by name")
