"""Stands before every route: the key, the clock, and the last word when something fails. Knows no route's business."""

import asyncio
import logging
import secrets
import time
from collections.abc import MutableMapping
from contextlib import suppress
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from penstock.settings.logs import log_failure
from penstock.storage.errors import Damaged

from ..errors import Refused, refusal
from .components import Components
from .gate import OPEN_PATHS

log = logging.getLogger(__name__)

DEFECT = {"action": "request_failed"}
DAMAGE = {"action": "damage_met"}
DAMAGE_S = 60.0

NO_ROUTE = "(none)"  # never the raw path: it holds names of tenants
LINGER_S = 2.0
UNTIMED = "penstock.untimed"  # set by routes that wait on purpose


class Front:
    """ASGI middleware. Whatever happens, the answer is an error of one shape and never a stack trace."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._damage = _Damage()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, exchange = time.perf_counter(), _Exchange(receive, send)
        components: Components = scope["app"].state.components
        try:
            await _let_in(scope, components)
            await self._app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = 499
        except Exception as error:  # noqa: BLE001 the last one who can answer
            self._damage.tell(error, scope)
            await _answer_failure(error, scope, exchange)
        finally:
            components.metrics.observe(
                route=_template(scope),
                method=scope["method"],
                status=exchange.status,
                seconds=None if scope.get(UNTIMED) else time.perf_counter() - started,
            )


class _Damage:
    """Tells whoever runs this what a caller was told of damage: once a minute of each, for many may ask the same."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}

    def tell(self, error: Exception, scope: Scope) -> None:
        damage, now = error if isinstance(error, Damaged) else error.__cause__, time.monotonic()
        if isinstance(damage, Damaged) and now - self._told_at.get(str(damage), -DAMAGE_S) >= DAMAGE_S:
            self._told_at = {known: at for known, at in self._told_at.items() if now - at < DAMAGE_S}
            self._told_at[str(damage)] = now  # it names a file, and holds no text
            log.error("Damage was met on %s %s: %s", scope["method"], _template(scope), damage, extra=DAMAGE)


async def _let_in(scope: Scope, components: Components) -> None:
    headers = Headers(scope=scope)
    _check_framing(headers)
    if scope["path"] not in OPEN_PATHS:
        await components.gate.check(headers.get("authorization"))
    _check_encoding(headers)
    if "\x00" in scope["path"]:  # the one character that PostgreSQL fails on
        raise Refused("there is nothing at this path", status=404, code="no_such_path")


def _check_framing(headers: Headers) -> None:
    """Refuse a request whose end two servers in a row may see in two places: what is after it is not to be answered."""
    if "transfer-encoding" in headers and "content-length" in headers:
        raise Refused(
            "the request has both Content-Length and Transfer-Encoding: send one of them",
            code="ambiguous_length",
            param="Content-Length",
            headers={"Connection": "close"},
        )


def _check_encoding(headers: Headers) -> None:
    given = [word.strip() for line in headers.getlist("content-encoding") for word in line.split(",")]
    coded = next((word for word in given if word.lower() not in {"", "identity"}), None)
    if coded is not None:
        raise Refused(
            f"the body is encoded as {coded[:40]!r}: send it as it is, without Content-Encoding",
            status=415,
            code="unsupported_content_encoding",
            param="Content-Encoding",
            headers={"Accept-Encoding": "identity"},  # RFC 9110, 15.5.16: what the request may be encoded as
        )


class _Exchange:
    """One request and its answer, and how far both came."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._received = False
        self.status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self._received = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)

    async def linger(self) -> None:
        """Read on for a moment: closing a connection with unread bytes resets it, and the caller never hears why."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._received:
                    await self.receive()


async def _answer_failure(error: Exception, scope: Scope, exchange: _Exchange) -> None:
    refused = refusal(error) or _defect(error, scope)
    if exchange.status:
        raise error  # half an answer is out: the server can only cut the connection
    if "expect" not in Headers(scope=scope):  # else the caller waits for leave to send
        await exchange.linger()
    await error_response(refused)(scope, exchange.receive, exchange.send)


def _defect(error: Exception, scope: MutableMapping[str, Any]) -> Refused:
    request = secrets.token_hex(6)
    log_failure(log, f"Request {request} failed on {scope['method']} {_template(scope)}", error, extra=DEFECT)
    return Refused(
        f"the server failed on this request; its log has the reason under {request!r}", status=500, code="internal"
    )


def error_response(refused: Refused) -> Response:
    """Return the one shape that every error has."""
    body = {"error": {"code": refused.code, "message": refused.message, "param": refused.param}}
    return JSONResponse(body, status_code=refused.status, headers=refused.headers)


def _template(scope: MutableMapping[str, Any]) -> str:
    return getattr(scope.get("route"), "path", NO_ROUTE)
