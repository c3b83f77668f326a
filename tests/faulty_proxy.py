"""An HTTP proxy in front of a server, for tests: it loses, tears, delays or repeats the requests that a test names."""

import http.client
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, Self
from urllib.parse import urlsplit

Fault = Literal["lose", "lose answer", "tear", "alter", "repeat", "busy", "delay", "hang"]


@dataclass(frozen=True)
class Request:
    number: int  # from 1
    method: str
    path: str
    range: str  # the header, as "bytes=0-999"


class FaultyProxy:
    """Forwards everything to ``upstream``; ``decide`` says which fault befalls a request, None for none.

    lose: the server never sees it. lose answer: the server does it, and nobody learns so. tear: half of the answer.
    alter: one byte of the answer is another. repeat: the server gets it twice. busy: 503. delay: the server gets it
    after ``meanwhile`` has happened. hang: no answer until close.
    """

    def __init__(
        self, upstream: str, decide: Callable[[Request], Fault | None], *, meanwhile: Callable[[], None] | None = None
    ) -> None:
        self.seen: list[Request] = []
        self._upstream = urlsplit(upstream).netloc
        self._decide = decide
        self._meanwhile = meanwhile
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                proxy._serve(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any  # noqa: N815

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        with self._lock:
            request = Request(len(self.seen) + 1, handler.command, handler.path, handler.headers.get("range") or "")
            self.seen.append(request)
            fault = self._decide(request)
        handler.close_connection = fault is not None
        if fault == "hang":
            self._closing.wait(60)
        if fault in {"lose", "hang"}:
            return
        if fault == "busy":
            handler.send_error(503, "SlowDown")
            return
        if fault == "delay":
            assert self._meanwhile is not None, "nothing happens while a request is delayed"
            self._meanwhile()
        for _ in range(2 if fault == "repeat" else 1):
            status, headers, answer = self._forward(handler, body)
        if fault == "lose answer":
            return
        self._answer(handler, status, headers, answer, fault=fault)

    def _forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():  # the host too: it is signed
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    @staticmethod
    def _answer(
        handler: BaseHTTPRequestHandler,
        status: int,
        headers: list[tuple[str, str]],
        answer: bytes,
        *,
        fault: Fault | None,
    ) -> None:
        handler.send_response(status)
        for name, value in headers:
            if name.lower() not in {"transfer-encoding", "connection", "content-length", "date", "server"}:
                handler.send_header(name, value)
        stated = {name.lower(): value for name, value in headers}.get("content-length")
        length = stated if handler.command == "HEAD" and stated is not None else str(len(answer))
        if status != 204:
            handler.send_header("content-length", length)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        if fault == "tear":
            answer = answer[: len(answer) // 2]
        if fault == "alter" and answer:
            middle = len(answer) // 2
            answer = answer[:middle] + bytes([answer[middle] ^ 1]) + answer[middle + 1 :]
        handler.wfile.write(answer)
