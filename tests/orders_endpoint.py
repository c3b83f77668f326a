"""The endpoint of embeddings with OpenAI's files and batches: orders that a test lets run, end, or go wrong."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

from .embedding_endpoint import POISON, Endpoint, Handler

Line = dict[str, Any]


class OrdersEndpoint(Endpoint):
    """``finish`` lets what was placed end. ``placed`` has every batch, ``files`` what is kept.

    ``change``: what becomes of the lines of answers, ``most_characters``: how many may wait at once.
    ``size_of``: the tokens of a text.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.placed: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.change: Callable[[list[Line]], list[Line]] = lambda lines: lines
        self.most_characters = 1 << 60
        self.size_of: Callable[[str], int] = lambda text: 1
        self.before_create: Callable[[OrdersHandler], bool] = lambda handler: False
        self.before_upload: Callable[[OrdersHandler], bool] = lambda handler: False
        super().__init__(OrdersHandler)

    def keep(self, content: bytes) -> str:
        name = f"file-{len(self.files) + len(self.deleted) + 1}"
        self.files[name] = content
        return name

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{len(self.placed) + 1}"
        self.placed[name] = {
            "id": name,
            "object": "batch",
            "endpoint": asked["endpoint"],
            "completion_window": asked["completion_window"],
            "input_file_id": asked["input_file_id"],
            "metadata": asked.get("metadata"),
            "status": "in_progress",
            "created_at": int(time.time()),
            "output_file_id": None,
            "error_file_id": None,
            "errors": None,
            "request_counts": {"total": len(self.lines(asked["input_file_id"])), "completed": 0, "failed": 0},
        }
        waiting = [one for one in self.placed.values() if one["status"] == "in_progress"]
        if sum(len(self.files.get(one["input_file_id"], b"")) for one in waiting) > self.most_characters:
            self.fail(name, "token_limit_exceeded", "Enqueued token limit reached for the model.")
        return self.placed[name]

    def lines(self, file_id: str) -> list[Line]:
        return [json.loads(line) for line in self.files[file_id].splitlines()]

    def fail(self, name: str, code: str, message: str) -> None:
        self.placed[name]["status"] = "failed"
        self.placed[name]["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": None}]}

    def finish(self, *, status: str = "completed", part: float = 1.0) -> int:
        """Answer the first ``part`` of the lines of each order that runs; return how many orders those were."""
        running = [one for one in self.placed.values() if one["status"] in {"in_progress", "cancelling"}]
        for one in running:
            lines = self.lines(one["input_file_id"])
            made = [self.answer_of(line) for line in lines[: round(part * len(lines))]]
            good = self.change([line for line in made if line["response"]["status_code"] == 200])
            bad = [line for line in made if line["response"]["status_code"] != 200]
            bad += [self.unanswered(line) for line in lines[len(made) :]]
            one["status"] = status
            one["output_file_id"] = self.keep(written(good)) if good else None
            one["error_file_id"] = self.keep(written(bad)) if bad else None
            one["request_counts"] |= {"completed": len(good), "failed": len(bad)}
        return len(running)

    def answer_of(self, line: Line) -> Line:
        texts = line["body"]["input"]
        body: dict[str, Any] = {
            "object": "list",
            "data": self.items(texts),
            "usage": {"prompt_tokens": sum(map(self.size_of, texts))},
        }
        status = 200
        if POISON in texts:
            status, body = 400, {"error": {"message": "this input is not allowed", "code": "invalid_input"}}
        return {"id": "r", "custom_id": line["custom_id"], "response": {"status_code": status, "body": body}}

    def unanswered(self, line: Line) -> Line:
        error = {"code": "batch_expired", "message": "This request could not be executed in time."}
        return {"id": "r", "custom_id": line["custom_id"], "response": None, "error": error}

    def ordered(self) -> list[str]:
        """Return the texts of every order that was not taken back, one as often as it was ordered."""
        kept = [one for one in self.placed.values() if one["status"] not in {"cancelled", "cancelling", "failed"}]
        return [text for one in kept for line in one["lines"] for text in line["body"]["input"]]


class OrdersHandler(Handler):
    endpoint: OrdersEndpoint

    def do_POST(self) -> None:  # noqa: N802 as its base class calls it
        if self.path.endswith("/embeddings"):
            super().do_POST()
        elif self.path.endswith("/files"):
            made = self.uploaded()
            if not self.endpoint.before_upload(self):
                self.answer_json(made)
        elif self.path.endswith("/cancel"):
            self.cancel(self.path.split("/")[-2])
        else:
            asked = json.loads(self.body())
            if self.endpoint.before_create(self):
                return
            made = self.endpoint.create(asked)
            made.setdefault("lines", self.endpoint.lines(asked["input_file_id"]))
            self.answer_json(shown(made))

    def do_GET(self) -> None:  # noqa: N802 as its base class calls it
        path, _, query = self.path.partition("?")
        name = path.rstrip("/").split("/")[-1]
        if path.endswith("/content"):
            content = self.endpoint.files.get(path.split("/")[-2])
            self.answer(200, content) if content is not None else self.refuse(404, "no such file")
        elif name == "batches":
            self.answer_page(query)
        elif name in self.endpoint.placed:
            self.answer_json(shown(self.endpoint.placed[name]))
        else:
            self.refuse(404, "no such batch")

    def do_DELETE(self) -> None:  # noqa: N802 as its base class calls it
        name = self.path.split("/")[-1]
        if self.endpoint.files.pop(name, None) is None:
            self.refuse(404, "no such file")
            return
        self.endpoint.deleted.append(name)
        self.answer_json({"id": name, "object": "file", "deleted": True})

    def answer_page(self, query: str) -> None:
        newest = list(self.endpoint.placed.values())[::-1]
        after = re.search(r"after=([^&]+)", query)
        if after:
            names = [one["id"] for one in newest]
            newest = newest[names.index(after[1]) + 1 :]
        page = newest[:2]  # so that a few orders need several pages
        more = len(newest) > len(page)
        self.answer_json(
            {
                "object": "list",
                "data": [shown(one) for one in page],
                "has_more": more,
                "first_id": page[0]["id"] if page else None,
                "last_id": page[-1]["id"] if page else None,
            }
        )

    def cancel(self, name: str) -> None:
        one = self.endpoint.placed[name]
        if one["status"] == "in_progress":
            one["status"] = "cancelling"
        self.answer_json(shown(one))

    def uploaded(self) -> dict[str, Any]:
        boundary = re.search(r"boundary=(\S+)", self.headers["Content-Type"])
        assert boundary is not None
        parts = self.body().split(b"--" + boundary[1].encode())
        (content,) = [part for part in parts if b'name="file"' in part]
        content = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
        return {
            "id": self.endpoint.keep(content),
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "filename": "requests.jsonl",
            "purpose": "batch",
            "status": "processed",
        }

    def body(self) -> bytes:
        if self.headers.get("Content-Length"):
            return self.rfile.read(int(self.headers["Content-Length"]))
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def answer_json(self, value: dict[str, Any]) -> None:
        self.answer(200, json.dumps(value).encode())


def shown(one: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in one.items() if name != "lines"}


def written(lines: list[Line]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)
