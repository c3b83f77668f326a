"""Routes: the shadow check of a collection that has two generations."""

import threading
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.embedding.billing import billed_for_searches
from penstock.pipeline.shadow import ShadowReport, shadow_check
from penstock.settings.checking import shadow_options
from penstock.storage.catalog.generations import other_generation
from penstock.storage.errors import NotFound
from penstock.storage.ids import GenerationId

from ...errors import Refused
from .. import answers
from ..attendance import while_waited_for
from ..bodies import read_json
from ..components import Components, components_of
from ..docs import json_body
from ..front import UNTIMED
from ..lookups import find_collection
from ..queries import StrictRoute

router = APIRouter(tags=["collections"], route_class=StrictRoute)


@router.post(
    "/v1/tenants/{tenant}/collections/{collection}/shadow",
    response_model=wire.ShadowReport,
    summary="Compare two generations of a collection",
    description="Asks both the same questions: recorded searches, else sentences of its chunks. What a re-embedding "
    "does before it switches, at any time; it changes nothing. 404 where there is one generation only. One check at a "
    "time in each process; whoever hangs up ends it.",
    openapi_extra=json_body(wire.ShadowQuery),
)
async def check(request: Request, tenant: str, collection: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.ShadowQuery)
    request.scope[UNTIMED] = True
    left = threading.Event()
    work = partial(check_shadow, components, tenant, collection, asked, left=left)
    report = await while_waited_for(request, work, left=left, limiter=components.shadows)
    return answers.answer(report.described())


def check_shadow(
    components: Components, tenant: str, name: str, asked: wire.ShadowQuery, *, left: threading.Event
) -> ShadowReport:
    """Compare two generations of a collection. Raises Refused, also once ``left`` is set: nobody waits any more."""
    info = find_collection(components.catalog, tenant, name)
    old = info.generation.id if asked.old is None else GenerationId(asked.old)
    instead = asked.model_dump(exclude={"old", "new"}, include=asked.model_fields_set)

    def proceed(_done: int, _all: int) -> None:
        if left.is_set():
            raise Refused("nobody waits for the report any more", status=408, code="cancelled")

    try:
        new = (
            other_generation(components.catalog, info.id, tenant=info.tenant_id, beside=old).id
            if asked.new is None
            else GenerationId(asked.new)
        )
        return shadow_check(
            components.catalog,
            components.snapshots,
            billed_for_searches(components.embedders.of, components.search_costs, info),
            tenant=info.tenant_id,
            collection_id=info.id,
            old=old,
            new=new,
            options=shadow_options(components.settings, **instead),
            now=components.clock(),
            proceed=proceed,
        )
    except NotFound as error:
        raise Refused(str(error), status=404, code="no_such_generation", param="new") from error
