"""Routes: search."""

import asyncio

from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire

from .. import answers, searching
from ..bodies import read_json
from ..components import components_of
from ..docs import json_body
from ..queries import StrictRoute
from ..tokens import wait_for_token

router = APIRouter(tags=["search"], route_class=StrictRoute)


@router.post(
    "/v1/tenants/{tenant}/collections/{collection}/search",
    response_model=wire.SearchResult,
    summary="Search a collection",
    description="By text or by vector. `min_token` waits up to 10 s for what a job has indexed, then answers 504; 429 "
    "when too many requests wait already.",
    openapi_extra=json_body(wire.SearchQuery),
)
async def search(request: Request, tenant: str, collection: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.SearchQuery)
    if asked.min_token is not None:
        await wait_for_token(request, tenant, collection, asked.min_token)
    body = await asyncio.get_running_loop().run_in_executor(
        searching.threads_for(components, tenant, collection, asked),
        searching.search,
        components,
        tenant,
        collection,
        asked,
    )
    return Response(body, media_type=answers.JSON)
