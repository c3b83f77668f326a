"""Routes: submitting documents, and what became of them."""

import re
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.settings.model import Limits
from penstock.settings.providers import check_economy
from penstock.storage.catalog.backlogs import Amount, check_backlog
from penstock.storage.catalog.documents import get_document, known, list_documents
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.jobs import get_job
from penstock.storage.catalog.progress import Tallies
from penstock.storage.catalog.tables import PRIORITIES
from penstock.storage.errors import NotFound
from penstock.storage.ids import DocumentId, JobId
from penstock.storage.intake.documents import Terms, accept

from ...errors import Refused, refusal
from .. import answers
from ..arrivals import Arriving, arriving
from ..bodies import read_json
from ..components import Components, components_of
from ..dead import asks_for_dead, dead_page
from ..docs import json_body, submission_body
from ..idempotency import REPLAYED, given_key
from ..lookups import find_collection
from ..places import TOO_MANY_WAITS
from ..polling import polled
from ..queries import DocumentsQuery, StrictRoute, SubmitQuery
from ..receiving import check_webhook
from ..uploads import Arrived, arrived

router = APIRouter(tags=["documents"], route_class=StrictRoute)
DOCUMENTS = "/v1/tenants/{tenant}/collections/{collection}/documents"
JOB_ID = re.compile(r"[a-z0-9_]{1,64}")
KNOWN_BODY_BYTES = 32 << 20


@router.post(
    DOCUMENTS,
    response_model=wire.Submitted,
    status_code=202,
    summary="Submit documents",
    description="All are accepted or none. From then on each becomes indexed, or failed with its reason. "
    "`Location` is the job. Documents that are here already, unchanged, cost nothing. With `wait` the answer comes "
    "when searches can find them (200), or when the time is over or too many requests wait already (202); `token` is "
    "the `min_token` of a search that does. With the header `Idempotency-Key` the same request again is told the same "
    "(`Idempotency-Replayed: true`) and does nothing; 409 while the first is worked on, 422 when it was another one. "
    "429 with `Retry-After` when too much of the tenant waits already.",
    openapi_extra=submission_body(),
)
async def submit(request: Request, tenant: str, collection: str, query: Annotated[SubmitQuery, Query()]) -> Response:
    components, key = components_of(request), given_key(request)
    await components.call(_check_room, tenant, collection, components.settings.limits)
    with components.keys_in_use.used(tenant, key):
        async with arrived(request, components.settings.limits) as submission:
            taken, answer = await anyio.to_thread.run_sync(
                _accept, components, tenant, collection, submission, key, limiter=components.submissions
            )
    if query.wait and taken.waiting:
        answer = await _waited(request, taken, tenant=tenant, wait_s=query.wait) or answer
    headers = {"Location": f"/v1/tenants/{tenant}/jobs/{taken.accepted.job_id}"}
    if taken.accepted.replayed:
        headers[REPLAYED] = "true"
    return answers.answer(answer, status=200 if query.wait and not taken.waiting else 202, headers=headers)


@router.post(
    DOCUMENTS + ":known",
    response_model=wire.Known,
    summary="Ask which documents are here already",
    description="So that a producer need not send them again.",
    openapi_extra=json_body(wire.KnownQuery),
)
async def ask_known(request: Request, tenant: str, collection: str) -> Response:
    asked = await read_json(request, wire.KnownQuery, limit_bytes=KNOWN_BODY_BYTES)
    found = await components_of(request).call(_known, tenant, collection, asked)
    return answers.answer(found)


@router.get(DOCUMENTS, response_model=wire.DocumentList, summary="List documents")
async def list_page(
    request: Request, tenant: str, collection: str, query: Annotated[DocumentsQuery, Query()]
) -> Response:
    return answers.answer(await components_of(request).call(_page, tenant, collection, query))


@router.get(DOCUMENTS + "/{document_id}", response_model=wire.Document, summary="Show a document")
async def show(request: Request, tenant: str, collection: str, document_id: str) -> Response:
    return answers.answer(await components_of(request).call(_document, tenant, collection, document_id))


async def _waited(request: Request, taken: Arriving, *, tenant: str, wait_s: float) -> dict[str, Any] | None:
    """Return the answer when all is searchable or failed, or as it is later; None: there was no place to wait."""
    components = components_of(request)
    look = partial(components.call, _looked, taken, components.clock)
    try:
        return await polled(request, look, tenant=tenant, waits=lambda one: one["pending"] > 0, wait_s=wait_s)
    except Refused as error:
        if error.code != TOO_MANY_WAITS:
            raise
        return None  # what was accepted is not refused any more


def _looked(catalog: Catalog, taken: Arriving, clock: Callable[[], float]) -> dict[str, Any]:
    taken.look(catalog)
    return _told(catalog, taken, now=clock(), tallies=None)


def _told(catalog: Catalog, taken: Arriving, *, now: float, tallies: Tallies | None) -> dict[str, Any]:
    tenant, job_id = taken.collection.tenant_id, taken.accepted.job_id
    job = get_job(catalog, tenant=tenant, job_id=job_id, tallies=tallies)
    return taken.answer(answers.job(job, now=now))


def _check_room(catalog: Catalog, tenant: str, name: str, limits: Limits) -> None:
    """Refuse before a long upload what would be refused after it."""
    check_backlog(catalog, find_collection(catalog, tenant, name).tenant_id, most=_most_waiting(limits))


def _most_waiting(limits: Limits) -> Amount:
    return Amount(limits.max_backlog_documents, limits.max_backlog_bytes)


def _accept(
    components: Components, tenant: str, name: str, submission: Arrived, key: str | None
) -> tuple[Arriving, dict[str, Any]]:
    limits = components.settings.limits
    asked = submission.read(limits)
    job_id, webhook_url = asked.job_id, asked.webhook_url
    if job_id is not None and not JOB_ID.fullmatch(job_id):
        raise Refused(f"there is no job {job_id!r}", status=404, code="not_found", param="job_id")
    if webhook_url is not None:
        check_webhook(webhook_url, private=components.settings.webhooks.private)
    found = find_collection(components.catalog, tenant, name)
    if asked.priority == "economy":
        check_economy(components.settings, found.generation.model)
    try:
        accepted = accept(
            components.catalog,
            components.objects,
            tenant=found.tenant_id,
            collection_id=found.id,
            generation_id=found.generation.id,
            documents=asked.documents,
            now=components.clock(),
            job_id=None if job_id is None else JobId(job_id),
            idempotency_key=key,
            terms=Terms(PRIORITIES.index(asked.priority), _most_waiting(limits), webhook_url, asked.budget_usd),
        )
    except NotFound as error:
        raise refusal(error, param="job_id") or error from error
    components.notices.work_ready()
    taken = arriving(components.catalog, found, accepted, sources=[document.source for document in asked.documents])
    return taken, _told(components.catalog, taken, now=components.clock(), tallies=components.tallies)


def _known(catalog: Catalog, tenant: str, name: str, asked: wire.KnownQuery) -> dict[str, list[str]]:
    found = find_collection(catalog, tenant, name)
    askable = (document for document in asked.documents if "\x00" not in document.source)  # none is ever accepted
    hashes = {document.source: bytes.fromhex(document.content_hash) for document in askable}
    here = known(catalog, tenant=found.tenant_id, collection_id=found.id, hashes=hashes)
    return {"known": sorted(here.kept), "dead": sorted(here.dead)}


def _page(catalog: Catalog, tenant: str, name: str, query: DocumentsQuery) -> dict[str, Any]:
    found = find_collection(catalog, tenant, name)
    after = None if query.after is None else DocumentId(query.after)
    if asks_for_dead(query):
        return dead_page(catalog, found, query, after=after)
    page = list_documents(
        catalog,
        tenant=found.tenant_id,
        collection_id=found.id,
        state=query.state,
        source=query.source,
        prefix=query.prefix,
        after=after,
        limit=query.limit + 1,
    )
    return answers.page([answers.document(info) for info in page], limit=query.limit)


def _document(catalog: Catalog, tenant: str, name: str, document_id: str) -> dict[str, Any]:
    found = find_collection(catalog, tenant, name)
    wanted = DocumentId(document_id)
    return answers.document(get_document(catalog, tenant=found.tenant_id, collection_id=found.id, document_id=wanted))
