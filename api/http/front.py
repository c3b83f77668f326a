"""Stands before every route: the key, the clock, and the last word when something fails. Knows no route's business."""

import logging
import secrets
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import Refused, refusal
from .components import Components
from .gate import OPEN_PATHS

log = logging.getLogger(__name__)

NO_ROUTE = "(none)"  # never the raw path: it holds names of tenants
UNTIMED = "penstock.untimed"  # set by routes that wait on purpose


class Front:
    """ASGI middleware. Whatever happens, the answer is an error of one shape and never a stack trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, tracked = time.perf_counter(), _Tracked(send)
        components: Components = scope["app"].state.components
        try:
            if scope["path"] not in OPEN_PATHS:
                await components.gate.check(Headers(scope=scope).get("authorization"))
            await self._app(scope, receive, tracked)
        except ClientDisconnect:
            tracked.status = 499
        except Exception as error:  # noqa: BLE001 the last one who can answer
            await _answer_failure(error, scope, receive, tracked)
        finally:
            components.metrics.observe(
                route=_template(scope),
                method=scope["method"],
                status=tracked.status,
                seconds=None if scope.get(UNTIMED) else time.perf_counter() - started,
            )


class _Tracked:
    """A `send` that remembers the status it sent; 0 while nothing was."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


async def _answer_failure(error: Exception, scope: Scope, receive: Receive, tracked: _Tracked) -> None:
    refused = refusal(error)
    if refused is None:
        refused = _defect(error, scope)
    if tracked.status:
        raise error  # half an answer is out: the server can only cut the connection
    await error_response(refused)(scope, receive, tracked)


def _defect(error: Exception, scope: MutableMapping[str, Any]) -> Refused:
    request = secrets.token_hex(6)
    log.error(
        "request %s failed on %s %s",
        request,
        scope["method"],
        _template(scope),
        exc_info=error,
        extra={"action": "request_failed", "request": request},
    )
    return Refused(
        f"the server failed on this request; its log has the reason under {request!r}", status=500, code="internal"
    )


def error_response(refused: Refused) -> Response:
    """Return the one shape that every error has."""
    body = {"error": {"code": refused.code, "message": refused.message, "param": refused.param}}
    return JSONResponse(body, status_code=refused.status, headers=refused.headers)


def _template(scope: MutableMapping[str, Any]) -> str:
    return getattr(scope.get("route"), "path", NO_ROUTE)
