"""Routes: what receivers were told when jobs ended, and what that is signed with."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.webhook_defaults import read_defaults, set_default
from penstock.storage.catalog.webhook_secrets import require_secret, rotate_secret
from penstock.storage.ledger.deliveries import list_deliveries, send_again

from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..docs import json_body
from ..lookups import find_collection, find_tenant
from ..queries import StrictRoute, WebhooksQuery
from ..receiving import check_webhook

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
    WEBHOOKS + "/check",
    response_model=wire.WebhookTaken,
    summary="Ask whether a URL would be taken",
    description="As `webhook_url` of a submission: 400 when this server may not tell it anything, 409 while the tenant "
    "has no secret. Nothing is sent there.",
    openapi_extra=json_body(wire.WebhookReceiver),
)
async def check(request: Request, tenant: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.WebhookReceiver)
    check_webhook(asked.url, private=components.settings.webhooks.private, param="url")
    await components.call(_check_secret, tenant)
    return answers.answer({"url": asked.url})


@router.get(WEBHOOKS + "/default", response_model=wire.WebhookDefaults, summary="Show who is told by default")
async def show_default(request: Request, tenant: str) -> Response:
    return answers.answer(await components_of(request).call(_defaults, tenant))


@router.put(
    WEBHOOKS + "/default",
    response_model=wire.WebhookDefaults,
    summary="Say who is told by default",
    description="Of every job of the tenant, or of one collection, that has no `webhook_url` of its own: submissions, "
    "deletes, changes and retries. Null: nobody; of a collection, as the tenant has it. 409 while the tenant has no "
    "secret.",
    openapi_extra=json_body(wire.WebhookDefault),
)
async def change_default(request: Request, tenant: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.WebhookDefault)
    if asked.url is not None:
        check_webhook(asked.url, private=components.settings.webhooks.private, param="url")
    return answers.answer(await components.call(_set_default, tenant, asked))


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


def _check_secret(catalog: Catalog, tenant: str) -> None:
    tenant_id = find_tenant(catalog, tenant)
    with catalog.read() as connection:
        require_secret(connection, tenant_id)


def _defaults(catalog: Catalog, tenant: str) -> dict[str, Any]:
    found = read_defaults(catalog, find_tenant(catalog, tenant))
    return {"url": found.url, "collections": dict(found.collections)}


def _set_default(catalog: Catalog, tenant: str, asked: wire.WebhookDefault) -> dict[str, Any]:
    tenant_id = find_tenant(catalog, tenant)
    if asked.collection is not None:
        find_collection(catalog, tenant, asked.collection)
    set_default(catalog, tenant_id, asked.url, collection=asked.collection)
    return _defaults(catalog, tenant)


def _retried(catalog: Catalog, tenant: str, delivery_id: str, *, now: float) -> dict[str, Any]:
    tenant_id = find_tenant(catalog, tenant)
    return answers.delivery(send_again(catalog, tenant=tenant_id, delivery_id=delivery_id, now=now))
