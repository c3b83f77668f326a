"""Routes: a collection is embedded again, with another model or cut otherwise, while it serves."""

from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.settings.model import Settings
from penstock.settings.providers import check_economy
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.errors import AlreadyExists
from penstock.storage.reembedding import commands, endings
from penstock.storage.reembedding.commands import NewGeneration, Terms
from penstock.storage.reembedding.records import ReembeddingInfo, find_reembedding

from ...errors import Refused, refusal
from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..configurations import other_configuration
from ..docs import json_body
from ..lookups import find_collection
from ..polling import polled
from ..queries import ReembeddingQuery, StrictRoute

router = APIRouter(tags=["collections"], route_class=StrictRoute)
REEMBEDDING = "/v1/tenants/{tenant}/collections/{collection}/reembedding"
RESTS = ("ready", "refused", "switched", "returned", "done", "cancelled")
TWICE = "Twice is harmless."


class _Command(Protocol):
    def __call__(self, catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo: ...


@router.post(
    REEMBEDDING,
    response_model=wire.Reembedding,
    status_code=202,
    summary="Embed a collection again",
    description="Another generation is built beside the one that serves, checked, and takes over. Asked for the same "
    "again it is that one; 409 when another one is being built, the one before is still kept, or nothing would be "
    "different.",
    openapi_extra=json_body(wire.NewReembedding),
)
async def begin(request: Request, tenant: str, collection: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.NewReembedding)
    found = await components.call(_begin, tenant, collection, asked, components.settings, now=components.clock())
    await components.warm(found["other"]["model"], found["other"]["dimensions"])
    components.notices.work_ready()
    return answers.answer(found, status=202)


@router.get(
    REEMBEDDING,
    response_model=wire.Reembedding,
    summary="Show how a collection is being embedded again, or wait until that rests",
    description="The one that is open, or else the last one; 404 when there was none.",
)
async def show(request: Request, tenant: str, collection: str, query: Annotated[ReembeddingQuery, Query()]) -> Response:
    components = components_of(request)

    async def look() -> dict[str, Any]:
        return await components.call(_shown, tenant, collection)

    def waits(found: dict[str, Any]) -> bool:
        return found["state"] not in RESTS and found["paused_at"] is None

    return answers.answer(await polled(request, look, tenant=tenant, waits=waits, wait_s=query.wait))


@router.patch(
    REEMBEDDING,
    response_model=wire.Reembedding,
    summary="Change what a re-embedding may cost",
    description="What it has cost is part of it. One that waits for money goes on at once when there is some.",
    openapi_extra=json_body(wire.ReembeddingChange),
)
async def change(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.ReembeddingChange)

    def set_budget(catalog: Catalog, collection: CollectionInfo, **_: float) -> ReembeddingInfo:
        return commands.set_budget(catalog, collection, budget_usd=asked.budget_usd)

    return await _told(request, tenant, collection, set_budget)


@router.post(
    REEMBEDDING + "/pause",
    response_model=wire.Reembedding,
    summary="Pause a re-embedding",
    description=f"What is being embedded just now is embedded; nothing more is. {TWICE}",
)
async def pause(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, commands.pause)


@router.post(
    REEMBEDDING + "/resume",
    response_model=wire.Reembedding,
    summary="Resume a re-embedding",
    description=f"What failed is tried again. {TWICE}",
)
async def resume(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, commands.resume)


@router.post(
    REEMBEDDING + "/cancel",
    response_model=wire.Reembedding,
    summary="Cancel a re-embedding",
    description=f"Before the switch: what was built goes, the collection stays as it is. While a rollback or another "
    f"switch waits, that is called off. {TWICE}",
)
async def cancel(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, endings.cancel)


@router.post(
    REEMBEDDING + "/check",
    response_model=wire.Reembedding,
    summary="Check the new generation again",
    description=f"When it is ready or was refused. {TWICE}",
)
async def check(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, commands.check_again)


@router.post(
    REEMBEDDING + "/switch",
    response_model=wire.Reembedding,
    summary="Let the new generation take over",
    description=f"At once where it passed its check, else when it does; `force`: although it did not. {TWICE}",
    openapi_extra=json_body(wire.Switch),
)
async def switch(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.Switch)

    def switched(catalog: Catalog, collection: CollectionInfo, *, now: float) -> ReembeddingInfo:
        return commands.switch(catalog, collection, forced=asked.force, now=now)

    return await _told(request, tenant, collection, switched)


@router.post(
    REEMBEDDING + "/rollback",
    response_model=wire.Reembedding,
    summary="Let the generation that served before take over again",
    description=f"With all that came since, while it is kept. {TWICE}",
)
async def go_back(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, commands.go_back)


@router.post(
    REEMBEDDING + "/drop",
    response_model=wire.Reembedding,
    summary="Let the generation go that does not serve",
    description=f"With its versions and tags; else it is kept until `kept_until`, or while it has tags. {TWICE}",
)
async def let_go(request: Request, tenant: str, collection: str) -> Response:
    return await _told(request, tenant, collection, endings.let_go)


async def _told(request: Request, tenant: str, collection: str, command: _Command) -> Response:
    components = components_of(request)
    found = await components.call(_commanded, tenant, collection, command, now=components.clock())
    components.notices.work_ready()
    return answers.answer(found)


def _begin(
    catalog: Catalog, tenant: str, name: str, asked: wire.NewReembedding, settings: Settings, *, now: float
) -> dict[str, Any]:
    found = find_collection(catalog, tenant, name)
    chosen = other_configuration(asked, found.generation, settings)
    if asked.economy:
        check_economy(settings, chosen.model)
    keep_s = settings.reembedding.keep_s if asked.keep_s is None else asked.keep_s
    terms = Terms(
        keep_s=keep_s,
        switches=asked.switch,
        forced=asked.force,
        economy=asked.economy,
        afresh=asked.afresh,
        budget_usd=asked.budget_usd,
    )
    try:
        return answers.reembedding(commands.begin(catalog, found, NewGeneration(**vars(chosen)), terms=terms, now=now))
    except AlreadyExists as error:
        raise refusal(error, param="model") or error from error


def _commanded(catalog: Catalog, tenant: str, name: str, command: _Command, *, now: float) -> dict[str, Any]:
    return answers.reembedding(command(catalog, find_collection(catalog, tenant, name), now=now))


def _shown(catalog: Catalog, tenant: str, name: str) -> dict[str, Any]:
    found = find_reembedding(catalog, find_collection(catalog, tenant, name).id)
    if found is None:
        raise Refused(
            f"collection {name!r} was never embedded again: POST to this path begins", status=404, code="not_found"
        )
    return answers.reembedding(found)
