"""A small server that speaks OpenAI's embeddings protocol, correctly or with one of its faults."""

import base64
import json
import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from penstock.pipeline.chunking import count_tokens

DIMENSIONS = 256
POISON = "refuse me"


class Endpoint:
    """``fault``: what it does instead of answering, called with the handler and the parsed request.

    ``billed_tokens``: what its answers say they cost.
    """

    def __init__(self, handler: "type[Handler] | None" = None) -> None:
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.dimensions = DIMENSIONS
        self.billed_tokens = 0
        self.fault: Callable[[Handler, dict[str, Any]], None] | None = None
        self.shortens = False  # whether it makes as many dimensions as it is asked for
        self.as_base64 = True
        self.told: dict[str, str] = {}  # headers of each answer
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (handler or Handler,), {"endpoint": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def vector_of(self, text: str) -> np.ndarray:
        """Return float32[d], not of length one: the embedder has to see to that."""
        return np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimensions).astype("<f4")

    def items(self, texts: list[str], *, dimensions: int | None = None) -> list[dict[str, Any]]:
        found = []
        for index, text in enumerate(texts):
            vector = self.vector_of(text)[: dimensions if self.shortens else None]
            value = base64.b64encode(vector.tobytes()).decode() if self.as_base64 else vector.tolist()
            found.append({"object": "embedding", "index": index, "embedding": value})
        return found


class Handler(BaseHTTPRequestHandler):
    endpoint: Endpoint
    tokens: int
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.endpoint.requests.append(request)
        self.tokens = sum(count_tokens(text) for text in request["input"])
        self.endpoint.headers.append({name.lower(): value for name, value in self.headers.items()})
        if self.endpoint.fault is not None:
            self.endpoint.fault(self, request)
        elif POISON in request["input"]:
            self.refuse(400, "this input is not allowed", code="invalid_input")
        else:
            self.answer_items(self.endpoint.items(request["input"], dimensions=request.get("dimensions")))

    def answer_items(self, items: list[dict[str, Any]]) -> None:
        usage = {"prompt_tokens": self.tokens, "total_tokens": self.tokens}
        self.endpoint.billed_tokens += self.tokens
        self.answer(
            200,
            json.dumps({"object": "list", "data": items, "model": "m", "usage": usage}).encode(),
            **self.endpoint.told,
        )

    def refuse(self, status: int, message: str, *, code: str | None = None, **headers: str) -> None:
        body = json.dumps({"error": {"message": message, "type": "some_error", "code": code}}).encode()
        self.answer(status, body, **headers)

    def answer(self, status: int, body: bytes, *, claimed_bytes: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) if claimed_bytes is None else claimed_bytes))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        if claimed_bytes is not None:
            self.close_connection = True

    def drip(self, body: bytes, *, every_s: float) -> None:
        """Answer a byte at a time, until the client has had enough."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.close_connection = True
        with suppress(OSError):
            for byte in body:
                self.wfile.write(bytes([byte]))
                if self.endpoint.released.wait(every_s):
                    return

    def hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass
