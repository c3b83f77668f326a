"""Routes: what a re-embedding is judged by: recorded searches, and judgements."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.judgements import Judgement, clear_judgements, list_judgements, load_judgements
from penstock.storage.catalog.recorded_queries import forget_recorded, read_recorded
from penstock.storage.catalog.tenants import get_tenant

from .. import answers
from ..bodies import read_json
from ..components import components_of
from ..docs import json_body
from ..lookups import find_collection
from ..queries import JudgementsQuery, QueriesQuery, StrictRoute

router = APIRouter(tags=["collections"], route_class=StrictRoute)
QUERIES = "/v1/tenants/{tenant}/collections/{collection}/queries"
JUDGEMENTS = "/v1/tenants/{tenant}/collections/{collection}/judgements"
BODY_BYTES = 32 << 20  # ten thousand judgements of long questions and long sources
TOLD = 100


@router.get(
    QUERIES,
    response_model=wire.RecordedQueryList,
    summary="List recorded searches",
    description="Newest first. The newest different ones of each collection are kept, to judge a re-embedding by.",
)
async def queries(request: Request, tenant: str, collection: str, query: Annotated[QueriesQuery, Query()]) -> Response:
    components = components_of(request)
    found = await components.call(_queries, tenant, collection, query.limit)
    found["recording"] = found["recording"] and components.settings.shadow.record
    return answers.answer(found)


@router.delete(
    QUERIES,
    response_model=wire.Forgotten,
    summary="Forget the recorded searches of a collection",
    description="More may be recorded from then on: `record_queries` of the tenant ends that.",
)
async def forget(request: Request, tenant: str, collection: str) -> Response:
    return answers.answer(await components_of(request).call(_forget, tenant, collection))


@router.get(JUDGEMENTS, response_model=wire.JudgementList, summary="List judgements, in an order of no meaning")
async def judgements(
    request: Request, tenant: str, collection: str, query: Annotated[JudgementsQuery, Query()]
) -> Response:
    return answers.answer(await components_of(request).call(_judgements, tenant, collection, query))


@router.post(
    JUDGEMENTS,
    response_model=wire.JudgementsLoaded,
    summary="Say how well documents answer questions",
    description="All of them are kept or none. Twice is harmless. 409 where a collection would have more than 10,000.",
    openapi_extra=json_body(wire.NewJudgements),
)
async def load(request: Request, tenant: str, collection: str) -> Response:
    components = components_of(request)
    asked = await read_json(request, wire.NewJudgements, limit_bytes=BODY_BYTES)
    return answers.answer(await components.call(_load, tenant, collection, asked, now=components.clock()))


@router.delete(JUDGEMENTS, response_model=wire.Forgotten, summary="Forget the judgements of a collection")
async def clear(request: Request, tenant: str, collection: str) -> Response:
    return answers.answer(await components_of(request).call(_clear, tenant, collection))


def _queries(catalog: Catalog, tenant: str, name: str, limit: int) -> dict[str, Any]:
    info = find_collection(catalog, tenant, name)
    found = read_recorded(catalog, info.id, limit=limit)
    recording = get_tenant(catalog, info.tenant_id).record_queries
    return {"data": [vars(one) for one in found.queries], "by_vector": found.by_vector, "recording": recording}


def _forget(catalog: Catalog, tenant: str, name: str) -> dict[str, Any]:
    return {"forgotten": forget_recorded(catalog, find_collection(catalog, tenant, name).id)}


def _judgements(catalog: Catalog, tenant: str, name: str, asked: JudgementsQuery) -> dict[str, Any]:
    info = find_collection(catalog, tenant, name)
    found = list_judgements(catalog, info.id, after=asked.after, limit=asked.limit + 1)
    return answers.page([{"id": id_, **vars(one)} for id_, one in found], limit=asked.limit)


def _load(catalog: Catalog, tenant: str, name: str, asked: wire.NewJudgements, *, now: float) -> dict[str, Any]:
    info = find_collection(catalog, tenant, name)
    given = [_judgement(one) for one in asked.judgements]
    loaded = load_judgements(
        catalog, given, tenant=info.tenant_id, collection_id=info.id, now=now, replace=asked.replace
    )
    return {
        "judgements": loaded.judgements,
        "queries": loaded.queries,
        "unknown_count": len(loaded.unknown),
        "unknown": loaded.unknown[:TOLD],
    }


def _judgement(one: wire.NewJudgement) -> Judgement:
    return Judgement(one.query, one.grade, one.source, one.document_id)


def _clear(catalog: Catalog, tenant: str, name: str) -> dict[str, Any]:
    return {"forgotten": clear_judgements(catalog, find_collection(catalog, tenant, name).id)}
