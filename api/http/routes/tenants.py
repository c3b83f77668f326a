"""Routes: tenants."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tenants import create_tenant, list_tenants
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
    found = await components_of(request).call(list_tenants)
    return answers.answer({"data": [answers.tenant(info) for info in found]})


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
    return answers.answer(await components.call(_described, new.name), status=201 if made else 200)


@router.get("/v1/tenants/{tenant}", response_model=wire.Tenant, summary="Show a tenant")
async def show(request: Request, tenant: str) -> Response:
    return answers.answer(await components_of(request).call(_described, tenant))


def _create(catalog: Catalog, name: str, *, now: float) -> bool:
    try:
        create_tenant(catalog, name, now=now)
    except AlreadyExists:
        return False
    except InvalidName as error:
        raise refusal(error, param="name") or error from error
    return True


def _described(catalog: Catalog, name: str) -> dict[str, Any]:
    tenant_id = find_tenant(catalog, name)
    return next(answers.tenant(info) for info in list_tenants(catalog) if info.id == tenant_id)
