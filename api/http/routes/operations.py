"""Routes: for those who run the server, and the description of the interface."""

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from penstock.client import wire

from .. import answers
from ..components import components_of
from ..docs import describe, page
from ..overview import status_of

router = APIRouter(tags=["operations"])
METRICS_TYPE = "text/plain; version=1.0.0; charset=utf-8"


@router.get("/v1/status", response_model=wire.Status, summary="Everything at a glance")
async def status(request: Request) -> Response:
    components = components_of(request)
    return answers.answer(await anyio.to_thread.run_sync(status_of, components, request.app.version))


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_model=wire.Health, summary="This process answers")
async def healthz() -> Response:
    return answers.answer({"ok": True, "reasons": [], "degraded": []})


@router.head("/readyz", include_in_schema=False)  # as load balancers ask
@router.get(
    "/readyz",
    response_model=wire.Health,
    responses={503: {"model": wire.Health, "description": "Not ready, and why"}},
    summary="This process can take documents and answer searches",
    description="With the key it says why not; without it, only which components are amiss.",
)
async def readyz(request: Request) -> Response:
    components = components_of(request)
    in_full = await components.gate.holds_key(request.headers.get("authorization"))
    look = components.health.now if in_full else components.health.recent
    found = await anyio.to_thread.run_sync(look, limiter=components.probes)
    return answers.answer(found.told(in_full=in_full), status=503 if found.reasons else 200)


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    exposition = await anyio.to_thread.run_sync(components_of(request).metrics.exposition)
    return Response(exposition, media_type=METRICS_TYPE)


@router.get("/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response:
    return JSONResponse(describe(request.app))


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    return HTMLResponse(page(describe(request.app)))


@router.get("/", include_in_schema=False)
async def index() -> Response:
    return RedirectResponse("/docs")
