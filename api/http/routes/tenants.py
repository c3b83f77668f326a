"""Routes: tenants, and what is paused."""

from dataclasses import asdict
from typing import Any

import redis
from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage import ledger
from penstock.storage.cache import read_use
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tenants import change_tenant, create_tenant, get_tenant, list_tenants
from penstock.storage.costs import Purse, read_month
from penstock.storage.errors import AlreadyExists, InvalidName

from ...errors import refusal
from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..docs import json_body
from ..lookups import find_tenant
from ..queries import StrictRoute

router = APIRouter(tags=["tenants"], route_class=StrictRoute)


@router.get("/v1/tenants", response_model=wire.TenantList, summary="List tenants")
async def list_all(request: Request) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_all, now=components.clock()))


@router.post(
    "/v1/tenants",
    response_model=wire.Tenant,
    status_code=201,
    summary="Make a tenant",
    description="200 when there is one of that name already.",
    openapi_extra=json_body(wire.NewTenant),
)
async def create(request: Request) -> Response:
    components, new = components_of(request), await read_json(request, wire.NewTenant)
    made = await components.call(_create, new.name, now=components.clock())
    return answers.answer(
        await components.call(_described, new.name, now=components.clock()), status=201 if made else 200
    )


@router.get("/v1/tenants/{tenant}", response_model=wire.Tenant, summary="Show a tenant")
async def show(request: Request, tenant: str) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_described, tenant, now=components.clock()))


@router.patch(
    "/v1/tenants/{tenant}",
    response_model=wire.Tenant,
    summary="Change a tenant's share and limits",
    description="Its weight among the tenants that have work, how much of it may wait, and whether searches of it may "
    "be recorded.",
    openapi_extra=json_body(wire.TenantChange),
)
async def change(request: Request, tenant: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.TenantChange)
    await components.call(_change, tenant, asked.model_dump(include=asked.model_fields_set))
    components.notices.work_ready()  # some of it may have waited for a budget
    return answers.answer(await components.call(_described, tenant, now=components.clock()))


@router.get(
    "/v1/tenants/{tenant}/cache",
    response_model=wire.CacheUse,
    summary="What the cache of vectors did for a tenant",
    description="Texts found and not found, what that saved, and what is kept. 503 when the cache's server does not "
    "answer.",
)
async def cache(request: Request, tenant: str) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_cache, components.redis, tenant))


@router.post(
    "/v1/tenants/{tenant}/pause",
    response_model=wire.Tenant,
    summary="Pause a tenant",
    description="Nothing more is begun for it; what is in hand is finished, submissions are accepted until its backlog "
    "is full, and searches go on. Twice is harmless.",
)
async def pause_one(request: Request, tenant: str) -> Response:
    return await _paused(request, tenant, paused=True)


@router.post("/v1/tenants/{tenant}/resume", response_model=wire.Tenant, summary="End the pause of a tenant")
async def resume_one(request: Request, tenant: str) -> Response:
    return await _paused(request, tenant, paused=False)


@router.post(
    "/v1/pause",
    response_model=wire.Pause,
    summary="Pause everything",
    description="As for one tenant, for all of them. Twice is harmless.",
)
async def pause_all(request: Request) -> Response:
    return await _paused(request, None, paused=True)


@router.post(
    "/v1/resume",
    response_model=wire.Pause,
    summary="End the pause of everything",
    description="Tenants that were paused on their own stay so.",
)
async def resume_all(request: Request) -> Response:
    return await _paused(request, None, paused=False)


def _create(catalog: Catalog, name: str, *, now: float) -> bool:
    try:
        create_tenant(catalog, name, now=now)
    except AlreadyExists:
        return False
    except InvalidName as error:
        raise refusal(error, param="name") or error from error
    return True


def _all(catalog: Catalog, *, now: float) -> dict[str, Any]:
    purses = read_month(catalog, now)
    return {"data": [answers.tenant(info, purses.get(info.id, Purse())) for info in list_tenants(catalog)]}


def _described(catalog: Catalog, name: str, *, now: float) -> dict[str, Any]:
    info = get_tenant(catalog, find_tenant(catalog, name))
    return answers.tenant(info, read_month(catalog, now, tenant=info.id).get(info.id, Purse()))


def _cache(catalog: Catalog, server: redis.Redis, name: str) -> dict[str, Any]:
    return asdict(read_use(server, find_tenant(catalog, name)))


def _change(catalog: Catalog, name: str, values: dict[str, float | None]) -> None:
    change_tenant(catalog, find_tenant(catalog, name), **values)


async def _paused(request: Request, name: str | None, *, paused: bool) -> Response:
    components = components_of(request)
    found = await components.call(_set_paused, name, paused=paused, now=components.clock())
    if not paused:
        components.notices.work_ready()
    return answers.answer(found)


def _set_paused(catalog: Catalog, name: str | None, *, paused: bool, now: float) -> dict[str, Any]:
    tenant = None if name is None else find_tenant(catalog, name)
    if paused:
        ledger.pause(catalog, tenant=tenant, now=now)
    else:
        ledger.resume(catalog, tenant=tenant)
    if name is not None:
        return _described(catalog, name, now=now)
    with catalog.read() as connection:
        return answers.pause(ledger.read_pauses(connection))
