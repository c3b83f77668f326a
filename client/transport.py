"""Sends requests and turns every failure into one of this folder's errors. Knows no route."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import httpx
from pydantic import ValidationError

from .errors import (
    Busy,
    ClientError,
    Conflict,
    Invalid,
    NotFound,
    OverBudget,
    ServerError,
    TooLarge,
    Unauthorized,
    Unreachable,
)
from .wire import Answer, ErrorAnswer, ErrorBody, Request
from .wire.problems import first_problem

AnswerT = TypeVar("AnswerT", bound=Answer)

KEY = re.compile(r"[!-~]+")
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
LONGEST_POLL_S = 30.0  # the server's bound on one long poll
RETRY_DELAYS_S = (0.1, 0.5)
# Below the server's own limit: a connection it is just closing is never taken for a new request.
KEEPALIVE_S = 3.0

BY_STATUS: dict[int, type[ClientError]] = {
    400: Invalid,
    401: Unauthorized,
    402: OverBudget,
    403: Unauthorized,
    404: NotFound,
    405: Invalid,
    409: Conflict,
    413: TooLarge,
    415: Invalid,
    422: Invalid,
}
BUSY = (429, 502, 503, 504)


@contextmanager
def worded(kind: type[Request]) -> Iterator[None]:
    """Refuse a ``kind`` that the server would refuse, in the same words and before it is sent."""
    try:
        yield
    except ValidationError as error:
        problem = first_problem(error, kind)
        raise Invalid(problem.message, code="invalid_request", param=problem.path or None) from error


class Transport:
    """One connection pool to one server. Safe to use from several threads."""

    def __init__(
        self, base_url: str, *, api_key: str, timeout_s: float, transport: httpx.BaseTransport | None = None
    ) -> None:
        key = api_key.strip()  # of a file it often has the end of the line
        if not KEY.fullmatch(key):  # told without it: what it would be refused with has it in its message
            raise Unauthorized("the key is empty, or has a character that no key has: `penstock up` printed it once")
        self._base_url = base_url.rstrip("/")
        self._client = httpx.Client(
            base_url=self._base_url,
            headers={"Authorization": f"Bearer {key}", "Accept": "application/json"},
            timeout=httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
            limits=httpx.Limits(keepalive_expiry=KEEPALIVE_S),
            # Reading all certificates takes 0.1 s, which an http:// server has no use for; redirects are not followed.
            verify=not self._base_url.startswith("http://"),
            follow_redirects=False,
            transport=transport,
        )

    def close(self) -> None:
        self._client.close()

    def get(
        self, path: str, kind: type[AnswerT], *, params: Mapping[str, Any] | None = None, wait_s: float = 0
    ) -> AnswerT:
        """Ask, and ask again a little when the connection fails.

        ``wait_s``: how long the server may hold it, told as ``wait``; where too many wait there, we do so here.
        """
        given = {key: value for key, value in (params or {}).items() if value is not None}
        if not wait_s:
            return _read(self._ask("GET", path, params=given), kind)
        try:
            waiting = given | {"wait": wait_s}
            return _read(self._ask("GET", path, params=waiting, timeout=self._patient(wait_s)), kind)
        except Busy as error:
            if error.code != "too_many_waits":
                raise
            time.sleep(min(wait_s, error.retry_after_s))
        return _read(self._ask("GET", path, params=given), kind)

    def ask(self, path: str, kind: type[AnswerT], *, body: dict[str, Any]) -> AnswerT:
        """POST what changes nothing: asked again like a GET."""
        return _read(self._ask("POST", path, json=body), kind)

    def post(self, path: str, kind: type[AnswerT], *, body: dict[str, Any] | None = None, wait_s: float = 0) -> AnswerT:
        """Do something. ``wait_s``: how much longer than usual it may take."""
        timeout = httpx.USE_CLIENT_DEFAULT if not wait_s else self._patient(wait_s)
        return _read(self._send("POST", path, json=body, timeout=timeout), kind)

    def submit(
        self, path: str, kind: type[AnswerT], *, key: str | None, wait_s: float, content: Callable[[ExitStack], Any]
    ) -> AnswerT:
        """POST under an idempotency key, which makes it harmless twice: asked again like a GET.

        ``content`` gives the content of one attempt; what that opens is closed after it.
        """
        if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):  # a header takes no others
            raise Invalid(
                f"idempotency_key {key[:80]!r} is none: give 1 to 255 visible ASCII characters, such as a UUID",
                code="invalid_idempotency_key",
                param="idempotency_key",
            )
        key, wait_s = key or uuid4().hex, min(wait_s, LONGEST_POLL_S)
        options = {
            "headers": {"Idempotency-Key": key},
            "params": {"wait": wait_s} if wait_s else {},
            "timeout": self._patient(wait_s) if wait_s else httpx.USE_CLIENT_DEFAULT,
        }
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                with ExitStack() as opened:
                    return _read(self._send("POST", path, **content(opened), **options), kind)
            except (Unreachable, Conflict) as error:
                mine = isinstance(error, Unreachable) or error.code == "idempotency_key_in_use"
                if delay_s is None or not mine:
                    raise
                time.sleep(delay_s)
        raise AssertionError  # the last attempt returns or raises

    def send_files(
        self,
        path: str,
        kind: type[AnswerT],
        *,
        params: Mapping[str, Any],
        wait_s: float,
        content: Callable[[ExitStack], Any],
    ) -> AnswerT:
        """POST what changes nothing: asked again like a GET. ``wait_s``: how much longer than usual it may take.

        ``content`` gives the content of one attempt; what that opens is closed after it.
        """
        given = {key: value for key, value in params.items() if value is not None}
        for delay_s in (*RETRY_DELAYS_S, None):
            try:
                with ExitStack() as opened:
                    options = {"params": given, "timeout": self._patient(wait_s)}
                    return _read(self._send("POST", path, **content(opened), **options), kind)
            except Unreachable:
                if delay_s is None:
                    raise
                time.sleep(delay_s)
        raise AssertionError  # the last attempt returns or raises

    def put(self, path: str, kind: type[AnswerT], *, params: Mapping[str, Any] | None = None) -> AnswerT:
        """Do what is harmless twice: asked again like a GET."""
        given = {key: value for key, value in (params or {}).items() if value is not None}
        return _read(self._ask("PUT", path, params=given), kind)

    def change(self, method: str, path: str, kind: type[AnswerT], *, body: dict[str, Any] | None = None) -> AnswerT:
        """DELETE, PATCH or POST, where that is harmless twice: asked again like a GET."""
        return _read(self._ask(method, path, json=body), kind)

    @contextmanager
    def stream(
        self, path: str, *, params: Mapping[str, Any], headers: Mapping[str, str], silent_s: float
    ) -> Iterator[Iterator[str]]:
        """Give the lines of an answer that has no end. Raises Unreachable, also later, when it is silent too long."""
        request = self._request("GET", path, params=dict(params), headers=dict(headers), timeout=self._silent(silent_s))
        with self._told():
            response = self._client.send(request, stream=True)
        try:
            with self._told():
                if not response.is_success:
                    response.read()
            _refuse(response)
            yield self._lines(response)
        finally:
            response.close()

    def _lines(self, response: httpx.Response) -> Iterator[str]:
        with self._told():
            yield from response.iter_lines()

    def _silent(self, silent_s: float) -> httpx.Timeout:
        usual = self._client.timeout
        return httpx.Timeout(connect=usual.connect, read=silent_s, write=usual.write, pool=usual.pool)

    def delete(self, path: str) -> None:
        _refuse(self._send("DELETE", path))

    def _patient(self, wait_s: float) -> httpx.Timeout:
        usual = self._client.timeout
        read_s = None if usual.read is None else usual.read + wait_s
        return httpx.Timeout(connect=usual.connect, read=read_s, write=usual.write, pool=usual.pool)

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        for delay_s in RETRY_DELAYS_S:
            try:
                return self._send(method, path, **options)
            except Unreachable:
                time.sleep(delay_s)
        return self._send(method, path, **options)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        request = self._request(method, path, **options)
        with self._told():
            return self._client.send(request)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException as error:
            raise Unreachable(f"{self._base_url} did not answer in time ({type(error).__name__})") from error
        except httpx.TransportError as error:
            raise Unreachable(
                f"no connection to {self._base_url}: {error or type(error).__name__}. Is `penstock up` running there?"
            ) from error

    def _request(self, method: str, path: str, **options: Any) -> httpx.Request:
        try:
            return self._client.build_request(method, path, **options)
        except (TypeError, ValueError) as error:  # NaN, a lone surrogate, an object that is none of JSON's
            raise Invalid(f"the request cannot be written as JSON: {error}", code="invalid_request") from error
        except httpx.InvalidURL as error:
            raise Invalid(f"the request cannot be written as a URL: {error}", code="invalid_request") from error


def _read(response: httpx.Response, kind: type[AnswerT]) -> AnswerT:
    _refuse(response)
    try:
        return kind.model_validate_json(response.content)
    except ValidationError as error:
        raise ServerError(
            f"{response.request.url.copy_with(query=None)} answered what this client cannot read as {kind.__name__}: "
            "is it a Penstock server of this version?",
            status=response.status_code,
        ) from error


def _refuse(response: httpx.Response) -> None:
    if response.is_success:
        return
    body, status = _error_body(response), response.status_code
    if status in BUSY:
        raise Busy(
            body.message, code=body.code, status=status, param=body.param, retry_after_s=_retry_after_s(response)
        )
    raise BY_STATUS.get(status, ServerError)(body.message, code=body.code, status=status, param=body.param)


def _error_body(response: httpx.Response) -> ErrorBody:
    try:
        return ErrorAnswer.model_validate_json(response.content).error
    except ValidationError:
        url = response.request.url.copy_with(query=None)
        return ErrorBody(code="not_penstock", message=f"{url} answered {response.status_code} without a reason")


def _retry_after_s(response: httpx.Response) -> float:
    try:
        return max(0.0, float(response.headers.get("retry-after", "1")))
    except ValueError:  # an HTTP date, which no Penstock server sends
        return 1.0
