"""Routes: the index of a collection, for whoever wants to know what it is made of."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire

from .. import answers, inspecting
from ..components import components_of
from ..lookups import find_collection
from ..queries import IndexQuery, StrictRoute

router = APIRouter(tags=["collections"], route_class=StrictRoute)


@router.get(
    "/v1/tenants/{tenant}/collections/{collection}/index",
    response_model=wire.IndexStats,
    summary="Figures of a collection's index",
    description="Its segments, their sizes and merges; with `probe`, how well searches find a sample of its rows.",
)
async def show(request: Request, tenant: str, collection: str, asked: Annotated[IndexQuery, Query()]) -> Response:
    components = components_of(request)
    info = await components.call(find_collection, tenant, collection)
    return answers.answer(await inspecting.index_stats(components, info, probe=asked.probe))
