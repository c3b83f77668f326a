"""A provider of embeddings on this machine: OpenAI's protocol, random vectors, a count of what it was asked."""

import base64
import json
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np


@dataclass
class Asked:
    """Calls so far, and how often each text was in one."""

    calls: int = 0
    texts: Counter[str] = field(default_factory=Counter)


class Provider:
    """Answers after ``latency_s`` with a vector that depends on the text alone. ``url`` is an OpenAI base URL.

    ``tokens`` counts what a call is charged for; one a text by default, which costs no time.
    """

    def __init__(self, *, dimensions: int, latency_s: float, tokens: Callable[[list[str]], int] = len) -> None:
        self.dimensions = dimensions
        self.tokens = tokens
        self.latency_s = latency_s
        self._lock = threading.Lock()
        self._asked = Asked()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"provider": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def taken(self) -> Asked:
        """Return what was asked since this was asked last."""
        with self._lock:
            asked, self._asked = self._asked, Asked()
        return asked

    def answer(self, texts: list[str]) -> bytes:
        """Count a call, and return the body of its answer."""
        with self._lock:
            self._asked.calls += 1
            self._asked.texts.update(texts)
        time.sleep(self.latency_s)
        data = [{"object": "embedding", "index": at, "embedding": self._vector(text)} for at, text in enumerate(texts)]
        usage = dict.fromkeys(("prompt_tokens", "total_tokens"), self.tokens(texts))
        return json.dumps({"object": "list", "data": data, "model": "local", "usage": usage}).encode()

    def _vector(self, text: str) -> str:
        made = np.random.default_rng(zlib.crc32(text.encode())).normal(size=self.dimensions).astype("<f4")
        return base64.b64encode(made.tobytes()).decode()


class _Handler(BaseHTTPRequestHandler):
    provider: Provider
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        request: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        body = self.provider.answer(request["input"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass
