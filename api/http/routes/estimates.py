"""Routes: what an ingest would take."""

import threading
from functools import partial
from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire

from .. import answers
from ..components import components_of
from ..docs import submission_body
from ..estimates import estimated
from ..queries import EstimateQuery, StrictRoute
from ..uploads import arrived
from .documents import DOCUMENTS

router = APIRouter(tags=["documents"], route_class=StrictRoute)


@router.post(
    DOCUMENTS + ":estimate",
    response_model=wire.Estimate,
    summary="Ask what submitting documents would take",
    description="The same body as a submission, within the same limits. Documents are read and cut, the index and the "
    "cache are asked, and nothing is stored, enqueued or paid for. Of a collection that is not there yet, `model` and "
    "the chunking may be said. A job, a webhook, a priority and a budget mean nothing here.",
    openapi_extra=submission_body(),
)
async def ask(request: Request, tenant: str, collection: str, query: Annotated[EstimateQuery, Query()]) -> Response:
    components, left = components_of(request), threading.Event()
    async with arrived(request, components.settings.limits) as submission:
        work = partial(estimated, components, tenant, collection, query, submission, left=left)
        try:
            found = await anyio.to_thread.run_sync(work, limiter=components.estimates, abandon_on_cancel=False)
        finally:
            left.set()
    return answers.answer(found)
