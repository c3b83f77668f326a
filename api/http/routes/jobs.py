"""Routes: jobs of a tenant."""

import asyncio
from functools import partial
from typing import Annotated, Any

import anyio
import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage.catalog.budgets import set_job_budget
from penstock.storage.catalog.cancelling import BREATH_S
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import JobInfo, cancelling_steps, get_job, list_jobs
from penstock.storage.catalog.progress import Tallies
from penstock.storage.ids import JobId

from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..docs import json_body
from ..events import Asked, events_response
from ..front import UNTIMED
from ..lookups import find_tenant
from ..polling import polled
from ..queries import EventsQuery, JobQuery, JobsQuery, StrictRoute

router = APIRouter(tags=["jobs"], route_class=StrictRoute)
JOBS = "/v1/tenants/{tenant}/jobs"


@router.get(JOBS, response_model=wire.JobList, summary="List jobs, newest first")
async def list_page(request: Request, tenant: str, query: Annotated[JobsQuery, Query()]) -> Response:
    components = components_of(request)
    now = components.clock()
    return answers.answer(await components.call(_page, tenant, query, tallies=components.tallies, now=now))


@router.get(
    JOBS + "/{job_id}",
    response_model=wire.Job,
    summary="Show a job, or wait for its end",
    description="429 when it would have to wait, and too many requests do already.",
)
async def show(request: Request, tenant: str, job_id: str, query: Annotated[JobQuery, Query()]) -> Response:
    components = components_of(request)

    async def look() -> dict[str, Any]:
        return await components.call(_job, tenant, job_id, tallies=components.tallies, now=components.clock())

    def waits(found: dict[str, Any]) -> bool:
        return bool(found["state"] == "running")

    return answers.answer(await polled(request, look, tenant=tenant, waits=waits, wait_s=query.wait))


@router.get(
    JOBS + "/{job_id}/events",
    response_class=Response,
    summary="Follow a job as server-sent events",
    description="`text/event-stream`. Each event has a job as `data`: `progress` while it runs, then `done` or "
    "`cancelled`, which ends the stream; `gone` when its collection was deleted. `Last-Event-ID` resumes; 204 says "
    "that there is nothing after it. 429 when too many streams are open: poll instead.",
)
async def events(request: Request, tenant: str, job_id: str, query: Annotated[EventsQuery, Query()]) -> Response:
    components = components_of(request)
    info = await components.call(_found, tenant, job_id, tallies=components.tallies)
    request.scope[UNTIMED] = True
    is_refused = partial(components.gate.refuses, request.headers.get("authorization"))
    asked = Asked(tenant, request.headers.get("last-event-id"), query.wait, is_refused)
    return events_response(components.feeds, info, asked, clock=components.clock)


@router.patch(
    JOBS + "/{job_id}",
    response_model=wire.Job,
    summary="Change what a job may cost",
    description="What it has cost is part of it. A job that waits for money goes on at once when there is some.",
    openapi_extra=json_body(wire.JobChange),
)
async def change(request: Request, tenant: str, job_id: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.JobChange)
    await components.call(_set_budget, tenant, job_id, asked.budget_usd)
    components.notices.work_ready()
    now = components.clock()
    return answers.answer(await components.call(_job, tenant, job_id, tallies=components.tallies, now=now))


@router.post(
    JOBS + "/{job_id}/cancel",
    response_model=wire.Job,
    summary="Cancel what is not indexed yet",
    description="409 when the job is done. Twice is harmless.",
)
async def cancel(request: Request, tenant: str, job_id: str) -> Response:
    components = components_of(request)
    now, tenant_id = components.clock(), await components.call(find_tenant, tenant)
    steps = cancelling_steps(components.catalog, tenant=tenant_id, job_id=JobId(job_id), now=now)
    # Cancels of millions of documents take turns, and a thread for a step at a time: others are answered meanwhile.
    while (step := await anyio.to_thread.run_sync(next, steps, None, limiter=components.cancels)) and step.more:
        await asyncio.sleep(BREATH_S)
    return answers.answer(await components.call(_job, tenant, job_id, tallies=components.tallies, now=now))


def _page(catalog: Catalog, tenant: str, query: JobsQuery, *, tallies: Tallies, now: float) -> dict[str, Any]:
    after = None if query.after is None else JobId(query.after)
    tenant_id = find_tenant(catalog, tenant)
    found = list_jobs(catalog, tenant=tenant_id, limit=query.limit + 1, after=after, tallies=tallies)
    return answers.page([answers.job(info, now=now) for info in found], limit=query.limit)


def _set_budget(catalog: Catalog, tenant: str, job_id: str, budget_usd: float | None) -> None:
    set_job_budget(catalog, tenant=find_tenant(catalog, tenant), job_id=JobId(job_id), budget_usd=budget_usd)


def _job(catalog: Catalog, tenant: str, job_id: str, *, tallies: Tallies, now: float) -> dict[str, Any]:
    return answers.job(_found(catalog, tenant, job_id, tallies=tallies), now=now)


def _found(catalog: Catalog, tenant: str, job_id: str, *, tallies: Tallies) -> JobInfo:
    return get_job(catalog, tenant=find_tenant(catalog, tenant), job_id=JobId(job_id), tallies=tallies)
