"""Routes: what receivers were told when jobs ended, and what that is signed with."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.webhook_secrets import rotate_secret
from penstock.storage.ledger.deliveries import list_deliveries, send_again

from .. import answers
from ..components import components_of
from ..lookups import find_tenant
from ..queries import StrictRoute, WebhooksQuery

router = APIRouter(tags=["webhooks"], route_class=StrictRoute)
WEBHOOKS = "/v1/tenants/{tenant}/webhooks"


@router.get(WEBHOOKS, response_model=wire.DeliveryList, summary="List what receivers were told, newest first")
async def list_page(request: Request, tenant: str, query: Annotated[WebhooksQuery, Query()]) -> Response:
    return answers.answer(await components_of(request).call(_page, tenant, query))


@router.post(
    WEBHOOKS + "/secret",
    response_model=wire.WebhookSecret,
    status_code=201,
    summary="Make what webhooks are signed with, or replace it",
    description="It is shown this once. The secret before it goes on signing too for a day.",
)
async def new_secret(request: Request, tenant: str) -> Response:
    components = components_of(request)
    made = await components.call(_new_secret, tenant, now=components.clock())
    return answers.answer(made, status=201, headers={"Cache-Control": "no-store"})


@router.post(
    WEBHOOKS + "/{delivery_id}/retry",
    response_model=wire.Delivery,
    summary="Send one that is over again",
    description="Under the same id. 409 when it is under way.",
)
async def retry(request: Request, tenant: str, delivery_id: str) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_retried, tenant, delivery_id, now=components.clock()))


def _page(catalog: Catalog, tenant: str, query: WebhooksQuery) -> dict[str, Any]:
    tenant_id = find_tenant(catalog, tenant)
    found = list_deliveries(catalog, tenant=tenant_id, limit=query.limit + 1, after=query.after, state=query.state)
    return answers.page([answers.delivery(info) for info in found], limit=query.limit)


def _new_secret(catalog: Catalog, tenant: str, *, now: float) -> dict[str, Any]:
    made = rotate_secret(catalog, find_tenant(catalog, tenant), now=now)
    return {"secret": made.secret, "created_at": made.created_at, "former_until": made.former_until}


def _retried(catalog: Catalog, tenant: str, delivery_id: str, *, now: float) -> dict[str, Any]:
    tenant_id = find_tenant(catalog, tenant)
    return answers.delivery(send_again(catalog, tenant=tenant_id, delivery_id=delivery_id, now=now))
