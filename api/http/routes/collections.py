"""Routes: collections of a tenant."""

from typing import Any, cast

from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.settings.model import Settings
from penstock.storage.catalog.collections import (
    CollectionInfo,
    Metric,
    Quantization,
    change_retention,
    create_collection,
    delete_collection,
    list_collections,
)
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import AlreadyExists, InvalidName

from ...errors import Refused, refusal
from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..configurations import Configuration, configuration
from ..docs import json_body
from ..lookups import find_collection, find_tenant
from ..queries import StrictRoute

router = APIRouter(tags=["collections"], route_class=StrictRoute)
COLLECTIONS = "/v1/tenants/{tenant}/collections"


@router.get(COLLECTIONS, response_model=wire.CollectionList, summary="List collections")
async def list_all(request: Request, tenant: str) -> Response:
    return answers.answer({"data": await components_of(request).call(_all, tenant)})


@router.post(
    COLLECTIONS,
    response_model=wire.Collection,
    status_code=201,
    summary="Make a collection",
    description="200 when there is one of that name and configuration already, 409 when its configuration differs, "
    "or when the tenant has as many collections as this server allows.",
    openapi_extra=json_body(wire.NewCollection),
)
async def create(request: Request, tenant: str) -> Response:
    components, new = components_of(request), await read_json(request, wire.NewCollection)
    chosen = configuration(new, components.settings)
    info, made = await components.call(
        _create, tenant, new.name, chosen, settings=components.settings, now=components.clock()
    )
    components.lookups.forget(tenant, new.name)
    if made:
        await components.warm(chosen.model, chosen.dimensions)
    return answers.answer(answers.collection(info), status=201 if made else 200)


@router.get(COLLECTIONS + "/{collection}", response_model=wire.Collection, summary="Show a collection")
async def show(request: Request, tenant: str, collection: str) -> Response:
    info = await components_of(request).call(find_collection, tenant, collection, counted=True)
    return answers.answer(answers.collection(info))


@router.patch(
    COLLECTIONS + "/{collection}",
    response_model=wire.Collection,
    summary="Change how long past versions of a collection are kept",
    openapi_extra=json_body(wire.CollectionChange),
)
async def change(request: Request, tenant: str, collection: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.CollectionChange)
    values = asked.model_dump(include=asked.model_fields_set)
    return answers.answer(answers.collection(await components.call(_change, tenant, collection, values)))


@router.delete(
    COLLECTIONS + "/{collection}",
    status_code=204,
    summary="Delete a collection and everything in it",
    description="What is still being worked on is dropped.",
)
async def delete(request: Request, tenant: str, collection: str) -> Response:
    components = components_of(request)
    await components.call(_delete, tenant, collection)
    components.lookups.forget(tenant, collection)
    return Response(status_code=204)


def _all(catalog: Catalog, tenant: str) -> list[dict[str, Any]]:
    found = list_collections(catalog, tenant=find_tenant(catalog, tenant))
    return [answers.collection(info) for info in found]


def _create(
    catalog: Catalog, tenant: str, name: str, chosen: Configuration, *, settings: Settings, now: float
) -> tuple[CollectionInfo, bool]:
    tenant_id = find_tenant(catalog, tenant)
    try:
        info = create_collection(
            catalog,
            tenant=tenant_id,
            name=name,
            model=chosen.model,
            dimensions=chosen.dimensions,
            metric=cast("Metric", chosen.metric),  # the wire knows no others, nor does a card
            quantization=cast("Quantization", chosen.quantization),
            chunking=chosen.chunking,
            shards=settings.workers.shards,
            now=now,
            max_collections=settings.limits.max_collections_per_tenant,
        )
    except AlreadyExists:
        info = find_collection(catalog, tenant, name, counted=True)
        _require_same(info, chosen)
        return info, False
    except InvalidName as error:
        raise refusal(error, param="name") or error from error
    return info, True


def _require_same(info: CollectionInfo, chosen: Configuration) -> None:
    generation = info.generation
    there = Configuration(
        generation.model,
        generation.dimensions,
        generation.metric,
        generation.quantization,
        dict(generation.chunking),
    )
    if there != chosen:
        raise Refused(
            f"collection {info.name!r} exists with another configuration: {there} is there, {chosen} was asked for",
            status=409,
            code="other_configuration",
            param="name",
        )


def _change(catalog: Catalog, tenant: str, name: str, values: dict[str, float | None]) -> CollectionInfo:
    found = find_collection(catalog, tenant, name)
    if not values:
        raise Refused("nothing is to be changed: give keep_versions or keep_s; null is what the server has for all")
    return change_retention(catalog, tenant=found.tenant_id, name=found.name, values=values)


def _delete(catalog: Catalog, tenant: str, name: str) -> None:
    found = find_collection(catalog, tenant, name)
    delete_collection(catalog, tenant=found.tenant_id, name=found.name)
