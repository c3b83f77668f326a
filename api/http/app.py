"""The web application: routes, one shape of errors, and what starts and stops with it. Decides nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from penstock.settings.model import Settings

from ..errors import Refused, refusal
from .components import Components, open_components
from .docs import describe
from .front import Front, error_response
from .bodies import refused_fields
from .routes import collections, documents, jobs, operations, search, tenants

ROUTERS = (search.router, documents.router, jobs.router, collections.router, tenants.router, operations.router)


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
    app.openapi = lambda: describe(app)
    app.add_middleware(Front)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _wrong_parameter)
    for router in ROUTERS:
        app.include_router(router)
    return app
