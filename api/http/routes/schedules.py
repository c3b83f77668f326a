"""Routes: schedules of collections, below their tenant, and the installation's own.

What belongs to the installation, and every folder of a machine that a schedule names, is the operator's: whoever has
the admin key. A key of a tenant, once there are such, must reach neither.
"""

import random
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.errors import InvalidChunking
from penstock.settings.model import Settings
from penstock.settings.providers import check_economy
from penstock.storage import schedules
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.schedules import Cadence, NewSchedule, Owner
from penstock.storage.schedules.actions import checked_options

from ...errors import Refused
from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..configurations import other_configuration
from ..docs import json_body
from ..lookups import find_collection, find_tenant
from ..queries import RunsQuery, SchedulesQuery, StrictRoute

router = APIRouter(tags=["schedules"], route_class=StrictRoute)
OF_TENANT = "/v1/tenants/{tenant}/schedules"
OF_COLLECTION = "/v1/tenants/{tenant}/collections/{collection}/schedules"
OF_EVERYTHING = "/v1/schedules"
RUN_NOW = "Beside its times, also while it is paused. 409 while a run of it is going."
DELETED = "A run that is going ends without an outcome."


@router.get(OF_TENANT, response_model=wire.ScheduleList, summary="List the schedules of a tenant")
async def list_of_tenant(request: Request, tenant: str, query: Annotated[SchedulesQuery, Query()]) -> Response:
    return answers.answer(await components_of(request).call(_list, tenant, query.collection))


@router.get(OF_EVERYTHING, response_model=wire.ScheduleList, summary="List the installation's own schedules")
async def list_of_everything(request: Request) -> Response:
    return answers.answer(await components_of(request).call(_list, None, None))


@router.post(
    OF_COLLECTION,
    response_model=wire.Schedule,
    status_code=201,
    summary="Make a schedule of a collection",
    description="It runs for the first time at its next time. Folders must lie below those that the settings allow.",
    openapi_extra=json_body(wire.NewSchedule),
)
async def add_to_collection(request: Request, tenant: str, collection: str) -> Response:
    return await _added(request, tenant, collection)


@router.post(
    OF_EVERYTHING,
    response_model=wire.Schedule,
    status_code=201,
    summary="Make a schedule of everything",
    description="For expire, merge and backup, of all tenants.",
    openapi_extra=json_body(wire.NewSchedule),
)
async def add_to_everything(request: Request) -> Response:
    return await _added(request, None, None)


@router.get(OF_TENANT + "/{schedule_id}", response_model=wire.Schedule, summary="Show a schedule")
async def show_of_tenant(request: Request, tenant: str, schedule_id: str) -> Response:
    return answers.answer(await components_of(request).call(_shown, tenant, schedule_id))


@router.get(OF_EVERYTHING + "/{schedule_id}", response_model=wire.Schedule, summary="Show a schedule of everything")
async def show_of_everything(request: Request, schedule_id: str) -> Response:
    return answers.answer(await components_of(request).call(_shown, None, schedule_id))


@router.delete(
    OF_TENANT + "/{schedule_id}", status_code=204, summary="Delete a schedule and its history", description=DELETED
)
async def delete_of_tenant(request: Request, tenant: str, schedule_id: str) -> Response:
    await components_of(request).call(_deleted, tenant, schedule_id)
    return Response(status_code=204)


@router.delete(
    OF_EVERYTHING + "/{schedule_id}", status_code=204, summary="Delete a schedule of everything", description=DELETED
)
async def delete_of_everything(request: Request, schedule_id: str) -> Response:
    await components_of(request).call(_deleted, None, schedule_id)
    return Response(status_code=204)


@router.post(OF_TENANT + "/{schedule_id}/pause", response_model=wire.Schedule, summary="Pause a schedule")
async def pause_of_tenant(request: Request, tenant: str, schedule_id: str) -> Response:
    return await _paused(request, tenant, schedule_id)


@router.post(OF_EVERYTHING + "/{schedule_id}/pause", response_model=wire.Schedule, summary="Pause one of everything")
async def pause_of_everything(request: Request, schedule_id: str) -> Response:
    return await _paused(request, None, schedule_id)


@router.post(OF_TENANT + "/{schedule_id}/resume", response_model=wire.Schedule, summary="End the pause of a schedule")
async def resume_of_tenant(request: Request, tenant: str, schedule_id: str) -> Response:
    return await _resumed(request, tenant, schedule_id)


@router.post(
    OF_EVERYTHING + "/{schedule_id}/resume", response_model=wire.Schedule, summary="End the pause of one of everything"
)
async def resume_of_everything(request: Request, schedule_id: str) -> Response:
    return await _resumed(request, None, schedule_id)


@router.post(
    OF_TENANT + "/{schedule_id}/run",
    response_model=wire.ScheduleRun,
    status_code=202,
    summary="Run a schedule now",
    description=RUN_NOW,
)
async def run_of_tenant(request: Request, tenant: str, schedule_id: str) -> Response:
    return await _begun(request, tenant, schedule_id)


@router.post(
    OF_EVERYTHING + "/{schedule_id}/run",
    response_model=wire.ScheduleRun,
    status_code=202,
    summary="Run one of everything now",
    description=RUN_NOW,
)
async def run_of_everything(request: Request, schedule_id: str) -> Response:
    return await _begun(request, None, schedule_id)


@router.get(
    OF_TENANT + "/{schedule_id}/runs",
    response_model=wire.ScheduleRunList,
    summary="List what became of the runs of a schedule, newest first",
)
async def runs_of_tenant(
    request: Request, tenant: str, schedule_id: str, query: Annotated[RunsQuery, Query()]
) -> Response:
    return answers.answer(await components_of(request).call(_history, tenant, schedule_id, query))


@router.get(
    OF_EVERYTHING + "/{schedule_id}/runs",
    response_model=wire.ScheduleRunList,
    summary="List what became of the runs of one of everything",
)
async def runs_of_everything(request: Request, schedule_id: str, query: Annotated[RunsQuery, Query()]) -> Response:
    return answers.answer(await components_of(request).call(_history, None, schedule_id, query))


def _owner(catalog: Catalog, tenant: str | None) -> Owner:
    return Owner() if tenant is None else Owner(find_tenant(catalog, tenant))


def _list(catalog: Catalog, tenant: str | None, collection: str | None) -> dict[str, Any]:
    owner = _owner(catalog, tenant)
    if tenant is not None and collection is not None:
        owner = Owner(owner.tenant, find_collection(catalog, tenant, collection).id)
    return {"data": [answers.schedule(info) for info in schedules.list_schedules(catalog, owner)]}


async def _added(request: Request, tenant: str | None, collection: str | None) -> Response:
    components, new = components_of(request), await read_json(request, wire.NewSchedule)
    settings, now = components.settings, components.clock()
    made = await components.call(_add, tenant, collection, new, settings=settings, now=now)
    return answers.answer(answers.schedule(made), status=201)


def _add(
    catalog: Catalog,
    tenant: str | None,
    collection: str | None,
    new: wire.NewSchedule,
    *,
    settings: Settings,
    now: float,
) -> schedules.ScheduleInfo:
    owner = _owner(catalog, tenant)
    found = None if tenant is None or collection is None else find_collection(catalog, tenant, collection)
    if found is not None:
        owner = Owner(owner.tenant, found.id)
    asked = new.options.model_dump()
    options = checked_options(new.action, asked, of_everything=found is None, roots=_roots(settings))
    if new.action == "reembed" and found is not None:
        _check_reembedding(new.options, found, settings)
    cadence = Cadence(cron=new.cron, every_s=new.every_s, timezone=new.timezone, jitter_s=new.jitter_s)
    wanted = NewSchedule(new.action, options, cadence)
    return schedules.add_schedule(catalog, owner, wanted, now=now, chance=random.random)


def _check_reembedding(options: wire.ScheduleOptions, there: CollectionInfo, settings: Settings) -> None:
    """Raise Refused, or NoOrders, where a run could not begin as the collection is now."""
    named = ("model", "dimensions", "chunking", "quantization")
    try:
        chosen = other_configuration(
            wire.NewReembedding(**{name: getattr(options, name) for name in named}), there.generation, settings
        )
    except Refused as error:
        raise Refused(error.message, code=error.code, param=f"options.{error.param}") from error
    except InvalidChunking as error:
        raise Refused(str(error), code="invalid_chunking", param="options.chunking") from error
    if options.economy:
        check_economy(settings, chosen.model)


def _roots(settings: Settings) -> dict[str, tuple[Path, ...]]:
    allowed = settings.schedules
    return {"schedules.sync_roots": allowed.sync_roots, "schedules.backup_roots": allowed.backup_roots}


def _shown(catalog: Catalog, tenant: str | None, schedule_id: str) -> dict[str, Any]:
    return answers.schedule(schedules.get_schedule(catalog, _owner(catalog, tenant), schedule_id))


def _deleted(catalog: Catalog, tenant: str | None, schedule_id: str) -> None:
    schedules.delete_schedule(catalog, _owner(catalog, tenant), schedule_id)


async def _paused(request: Request, tenant: str | None, schedule_id: str) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_pause, tenant, schedule_id, now=components.clock()))


def _pause(catalog: Catalog, tenant: str | None, schedule_id: str, *, now: float) -> dict[str, Any]:
    return answers.schedule(schedules.pause_schedule(catalog, _owner(catalog, tenant), schedule_id, now=now))


async def _resumed(request: Request, tenant: str | None, schedule_id: str) -> Response:
    components = components_of(request)
    return answers.answer(await components.call(_resume, tenant, schedule_id, now=components.clock()))


def _resume(catalog: Catalog, tenant: str | None, schedule_id: str, *, now: float) -> dict[str, Any]:
    owner, chance = _owner(catalog, tenant), random.random
    return answers.schedule(schedules.resume_schedule(catalog, owner, schedule_id, now=now, chance=chance))


async def _begun(request: Request, tenant: str | None, schedule_id: str) -> Response:
    components = components_of(request)
    run = await components.call(_run, tenant, schedule_id, now=components.clock())
    return answers.answer(asdict(run), status=202)


def _run(catalog: Catalog, tenant: str | None, schedule_id: str, *, now: float) -> schedules.RunInfo:
    return schedules.run_now(catalog, _owner(catalog, tenant), schedule_id, now=now)


def _history(catalog: Catalog, tenant: str | None, schedule_id: str, query: RunsQuery) -> dict[str, Any]:
    found = schedules.get_schedule(catalog, _owner(catalog, tenant), schedule_id)
    runs = schedules.list_runs(catalog, found.id, limit=query.limit + 1, after=query.after)
    return answers.page([asdict(run) for run in runs], limit=query.limit)
