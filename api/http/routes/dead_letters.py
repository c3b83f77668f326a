"""Routes: documents that failed, sent on their way again or given up."""

from collections.abc import Sequence
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.filters import parse_filter
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.jobs import get_job
from penstock.storage.ids import JobId
from penstock.storage.intake.dead import DeadSelection, ids_of, select_dead
from penstock.storage.intake.revivals import Revived, drop_documents, retry_documents
from penstock.storage.intake.verdicts import Refusal

from ...errors import Refused
from .. import answers
from ..bodies import read_json
from ..components import Components, components_of
from ..docs import json_body
from ..lookups import find_collection
from ..queries import StrictRoute
from .documents import DOCUMENTS
from .removals import LONG_BODY_BYTES

router = APIRouter(tags=["documents"], route_class=StrictRoute)


@router.post(
    DOCUMENTS + ":retry",
    response_model=wire.Retried,
    status_code=202,
    summary="Retry dead documents",
    description="From the bytes that are stored, as one job (`Location`). 200 where nothing is retried, and with "
    "`dry_run`. Twice is harmless.",
    openapi_extra=json_body(wire.DeadSelection),
)
async def retry(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.DeadSelection, limit_bytes=LONG_BODY_BYTES)
    components = components_of(request)
    # Not among the quick calls: as many may be retried as ever failed.
    answer = await anyio.to_thread.run_sync(_retry, components, tenant, collection, asked, limiter=components.changes)
    if answer["job"] is None:
        return answers.answer(answer)
    components.notices.work_ready()
    return answers.answer(answer, status=202, headers={"Location": f"/v1/tenants/{tenant}/jobs/{answer['job']['id']}"})


@router.post(
    DOCUMENTS + ":drop",
    response_model=wire.Dropped,
    summary="Give dead documents up",
    description="Their bytes go. What is indexed of them stays. With `dry_run` nothing is dropped.",
    openapi_extra=json_body(wire.DeadSelection),
)
async def drop(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.DeadSelection, limit_bytes=LONG_BODY_BYTES)
    components = components_of(request)
    return answers.answer(
        await anyio.to_thread.run_sync(_drop, components, tenant, collection, asked, limiter=components.changes)
    )


def _retry(components: Components, tenant: str, name: str, asked: wire.DeadSelection) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    ids, unknown = _chosen(components, collection, asked)
    done = retry_documents(
        components.catalog,
        components.objects,
        tenant=collection.tenant_id,
        collection_id=collection.id,
        generation_id=collection.generation.id,
        document_ids=ids,
        now=components.clock(),
        dry_run=asked.dry_run,
    )
    done.add([], unknown)
    job = None if done.job_id is None else _job(components, collection, done.job_id)
    return {"job": job, "retried": done.done, **_others(done, with_ids=asked.with_ids)}


def _drop(components: Components, tenant: str, name: str, asked: wire.DeadSelection) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    ids, unknown = _chosen(components, collection, asked)
    done = drop_documents(
        components.catalog,
        tenant=collection.tenant_id,
        collection_id=collection.id,
        generation_id=collection.generation.id,
        document_ids=ids,
        now=components.clock(),
        dry_run=asked.dry_run,
    )
    done.add([], unknown)
    return {"dropped": done.done, **_others(done, with_ids=asked.with_ids)}


def _chosen(
    components: Components, collection: CollectionInfo, asked: wire.DeadSelection
) -> tuple[Sequence[str], list[Refusal]]:
    """Return the ids of the documents that are meant, and the sources that no document has."""
    common = (asked.job_id, asked.error_code, asked.stage, asked.filter)
    shared = any(one is not None for one in common)
    if [asked.ids is not None or asked.sources is not None, shared, asked.all].count(True) != 1:
        raise Refused(
            "say which documents: by ids and sources, by job_id, error_code, stage and filter, or all of them",
            param="ids",
        )
    if shared or asked.all:
        filter_ = None if asked.filter is None else parse_filter(asked.filter)
        job_id = None if asked.job_id is None else JobId(asked.job_id)
        meant = DeadSelection(job_id, asked.error_code, asked.stage, filter_)
        return select_dead(
            components.catalog, tenant=collection.tenant_id, collection_id=collection.id, selection=meant
        ), []
    sources = asked.sources or ()
    found = ids_of(components.catalog, tenant=collection.tenant_id, collection_id=collection.id, sources=sources)
    unknown = [
        Refusal(source, None, "not_found", "the collection has no document of this source")
        for source in dict.fromkeys(sources)
        if source not in found
    ]
    return [*(asked.ids or ()), *found.values()], unknown


def _job(components: Components, collection: CollectionInfo, job_id: JobId) -> dict[str, Any]:
    found = get_job(components.catalog, tenant=collection.tenant_id, job_id=job_id, tallies=components.tallies)
    return answers.job(found, now=components.clock())


def _others(done: Revived, *, with_ids: bool) -> dict[str, Any]:
    return {
        "ids": done.ids if with_ids else None,
        "refused": dict(done.refused),
        "sample": [{"id": document_id, "source": source} for document_id, source in done.sample],
        "refusals": [
            {"id": one.document_id, "source": one.source, "code": one.code, "reason": one.reason}
            for one in done.refusals
        ],
    }
