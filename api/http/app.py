"""The web application: routes, one shape of errors, and what starts and stops with it. Decides nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock.settings.model import Settings

from ..errors import Refused
from .components import Components, open_components
from .front import Front, error_response
from .routes import (
    collections,
    dead_letters,
    documents,
    estimates,
    index,
    jobs,
    operations,
    questions,
    reembeddings,
    removals,
    schedules,
    search,
    shadow,
    snapshots,
    tenants,
    usage,
    webhooks,
)

ROUTERS = (
    search.router,
    documents.router,
    estimates.router,
    removals.router,
    dead_letters.router,
    jobs.router,
    collections.router,
    index.router,
    snapshots.router,
    reembeddings.router,
    questions.router,
    shadow.router,
    tenants.router,
    usage.router,
    webhooks.router,
    schedules.router,
    operations.router,
)


def make_app(settings: Settings, *, components: Components | None = None) -> FastAPI:
    """Return the application. Nothing is opened before it starts.

    ``components``: already opened ones, which the caller closes; they serve even where nothing runs the lifespan.
    """
    app = FastAPI(
        title="Penstock",
        version=version("penstock"),
        lifespan=_lifespan(settings, components),
        docs_url=None,  # the usual pages load their scripts from elsewhere: see docs.page
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would be answered before the key is looked at
    )
    app.state.components = components
    app.add_middleware(Front)
    app.add_exception_handler(HTTPException, _no_route)
    for router in ROUTERS:
        app.include_router(router)
    return app


def _lifespan(settings: Settings, given: Components | None) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if given is not None:
            yield
            return
        opening = open_components(settings)
        app.state.components = await anyio.to_thread.run_sync(opening.__enter__)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(opening.__exit__, None, None, None)

    return lifespan


async def _no_route(request: Request, error: Exception) -> Response:
    """Word what the framework itself refuses: a path or a method that nothing answers."""
    assert isinstance(error, HTTPException)
    code = {404: "no_such_path", 405: "no_such_method"}.get(error.status_code, "invalid_request")
    message = {
        404: "there is nothing at this path: /docs lists what there is",
        405: f"{request.method} is not answered here: /docs lists what is",
    }.get(error.status_code, str(error.detail))
    headers = dict(error.headers or {})
    return error_response(Refused(message, status=error.status_code, code=code, headers=headers))
