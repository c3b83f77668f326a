"""Routes: documents and chunks that leave, and documents that say something else from now on."""

from functools import partial
from typing import Any

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.filters import parse_filter
from penstock.pipeline.moments import given_time
from penstock.pipeline.removal import Meant, Removal, delete_chunks, delete_documents
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.jobs import get_job
from penstock.storage.errors import NotFound
from penstock.storage.ids import DocumentId, JobId
from penstock.storage.intake.updates import DocumentChange, update_document

from ...errors import Refused
from .. import answers
from ..bodies import read_json
from ..components import Components, components_of
from ..docs import json_body
from ..lookups import find_collection
from ..queries import StrictRoute
from ..tokens import WAIT_S, wait_for_token, wanted_version
from .documents import DOCUMENTS

router = APIRouter(tags=["documents"], route_class=StrictRoute)
CHUNKS = "/v1/tenants/{tenant}/collections/{collection}/chunks"
LONG_BODY_BYTES = 32 << 20


@router.delete(
    DOCUMENTS + "/{document_id}",
    response_model=wire.Deleted,
    status_code=202,
    summary="Delete a document",
    description="It leaves in a later snapshot, whatever happens; `Location` is the job. Twice is harmless.",
)
async def delete_one(request: Request, tenant: str, collection: str, document_id: str) -> Response:
    return await _logged(request, _delete_one, tenant, collection, document_id)


@router.post(
    DOCUMENTS + ":delete",
    response_model=wire.Deleted,
    status_code=202,
    summary="Delete documents by id, source or filter",
    description="All as one job. With `dry_run` nothing is deleted, and the answer is 200.",
    openapi_extra=json_body(wire.Deletion),
)
async def delete_many(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.Deletion, limit_bytes=LONG_BODY_BYTES)
    if asked.min_token is not None:
        await wait_for_token(request, tenant, collection, asked.min_token)
    return await _logged(request, _delete_many, tenant, collection, asked)


@router.patch(
    DOCUMENTS + "/{document_id}",
    response_model=wire.Updated,
    status_code=202,
    summary="Change what a document says, but not its text",
    description="Title, metadata and times. Nothing is embedded again; its chunks get new ids.",
    openapi_extra=json_body(wire.DocumentUpdate),
)
async def update(request: Request, tenant: str, collection: str, document_id: str) -> Response:
    asked = await read_json(request, wire.DocumentUpdate)
    return await _logged(request, _update, tenant, collection, document_id, asked)


@router.post(
    CHUNKS + ":delete",
    response_model=wire.ChunksDeleted,
    status_code=202,
    summary="Delete chunks by id",
    description="Their documents stay, and a new version of one brings all its chunks.",
    openapi_extra=json_body(wire.ChunkDeletion),
)
async def delete_some_chunks(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.ChunkDeletion, limit_bytes=LONG_BODY_BYTES)
    if asked.min_token is not None:
        await wait_for_token(request, tenant, collection, asked.min_token)
    return await _logged(request, _delete_chunks, tenant, collection, asked)


async def _logged(request: Request, work: Any, tenant: str, *args: Any) -> Response:
    """Answer 202 with the job that was logged; 200 where none was."""
    components = components_of(request)
    # Not among the quick calls: a filter is resolved in the newest snapshot there is, which may still be opened.
    answer = await anyio.to_thread.run_sync(work, components, tenant, *args, limiter=components.changes)
    if answer["job"] is None:
        return answers.answer(answer)
    components.notices.work_ready()
    return answers.answer(answer, status=202, headers={"Location": f"/v1/tenants/{tenant}/jobs/{answer['job']['id']}"})


def _delete_one(components: Components, tenant: str, name: str, document_id: str) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    delete = partial(
        delete_documents,
        components.catalog,
        components.snapshots,
        collection,
        Meant([document_id]),
        now=components.clock(),
    )
    if delete(dry_run=True).not_found:
        raise NotFound(f"there is no document {document_id!r}")
    return _deleted(components, collection, delete())


def _delete_many(components: Components, tenant: str, name: str, asked: wire.Deletion) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    filter_ = None if asked.filter is None else parse_filter(asked.filter)
    done = delete_documents(
        components.catalog,
        components.snapshots,
        collection,
        Meant(asked.ids, asked.sources, asked.if_versions, filter_, asked.with_ids),
        min_version=_least_version(components, tenant, name, asked.min_token),
        timeout_s=WAIT_S,
        dry_run=asked.dry_run,
        now=components.clock(),
    )
    return _deleted(components, collection, done)


def _deleted(components: Components, collection: CollectionInfo, done: Removal) -> dict[str, Any]:
    return {
        "job": None if done.job_id is None else _job(components, collection, done.job_id),
        "deleted": done.deleted,
        "already_deleted": done.already_deleted,
        "not_found": done.not_found,
        "changed": done.changed,
        "sample": [{"id": document_id, "source": source} for document_id, source in done.sample],
        "missing": list(done.missing),
        "ids": done.ids,
        "stayed": [{"id": document_id, "source": source} for document_id, source in done.stayed],
    }


def _update(
    components: Components, tenant: str, name: str, document_id: str, asked: wire.DocumentUpdate
) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    done = update_document(
        components.catalog,
        tenant=collection.tenant_id,
        collection_id=collection.id,
        generation_id=collection.generation.id,
        document_id=DocumentId(document_id),
        change=_change(asked, document_id),
        now=components.clock(),
    )
    return {"job": _job(components, collection, done.job_id), "changed": done.changed, "version": done.number}


def _change(asked: wire.DocumentUpdate, document_id: str) -> DocumentChange:
    given = asked.model_fields_set
    if not given:
        raise Refused("nothing is to be changed: give title, metadata, replace_metadata, event_time or expires_at")
    if {"metadata", "replace_metadata"} <= given:
        raise Refused("give either metadata, which is merged, or replace_metadata", param="replace_metadata")
    whole = asked.replace_metadata
    if given & {"metadata", "replace_metadata"} and asked.metadata is None and whole is None:
        whole = {}  # null: all of it goes
    values: dict[str, Any] = {
        "title": asked.title,
        "event_time": given_time(asked.event_time, param="event_time", source=document_id),
        "expires_at": given_time(asked.expires_at, param="expires_at", source=document_id),
    }
    values = {name: value for name, value in values.items() if name in given}
    return DocumentChange(values=values, metadata=whole, patch=asked.metadata)


def _delete_chunks(components: Components, tenant: str, name: str, asked: wire.ChunkDeletion) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    done = delete_chunks(
        components.catalog,
        components.snapshots,
        collection,
        chunk_ids=asked.chunk_ids,
        min_version=_least_version(components, tenant, name, asked.min_token),
        timeout_s=WAIT_S,
        now=components.clock(),
    )
    job = _job(components, collection, done.job_id)
    return {"job": job, "deleted": done.deleted, "not_found": done.not_found}


def _least_version(components: Components, tenant: str, name: str, token: str | None) -> int:
    return 0 if token is None else wanted_version(components, tenant, name, token)


def _job(components: Components, collection: CollectionInfo, job_id: JobId) -> dict[str, Any]:
    found = get_job(components.catalog, tenant=collection.tenant_id, job_id=job_id, tallies=components.tallies)
    return answers.job(found, now=components.clock())
