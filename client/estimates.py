"""What the client can do with estimates: a part of `Penstock`."""

import base64
import struct
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from .errors import Invalid, TooLarge
from .session import Session
from .transport import worded
from .uploads import REQUEST_FILES, Upload, form_part, in_requests
from .wire import Chunking, Estimate, Priority, Unreadable, UploadForm

LONGEST_ESTIMATE_S = 1_800.0  # hundreds of files are read and cut before the answer
_TEXT = struct.Struct("<8sI")


class Estimates(Session):
    """The methods of `Penstock` about what an ingest would take."""

    def estimate(
        self,
        collection: str,
        files: Sequence[Upload],
        *,
        model: str | None = None,
        chunking: Chunking | None = None,
        priority: Priority = "normal",
        on_progress: Callable[[int], None] | None = None,
    ) -> Estimate:
        """Return what submitting these files now would take: documents, chunks, tokens, cost, time.

        They are sent in bounded requests, read and cut by the server, and forgotten: nothing is stored or enqueued. A
        text that occurs in several of them counts once. ``model`` and ``chunking``: of a collection that is not there
        yet. ``priority``: of the submission; ``economy`` costs half. ``on_progress`` is told how many files were looked
        at.
        """
        total = _Sum()
        done = 0
        for request in in_requests(files, lambda file: file.size_bytes, most_files=REQUEST_FILES):
            self._add(total, collection, request, model=model, chunking=chunking, priority=priority)
            done += len(request)
            if on_progress is not None:
                on_progress(done)
        return total.told()

    def _add(self, total: "_Sum", collection: str, files: Sequence[Upload], **made: Any) -> None:
        """Estimate one request; when it is too large, its halves, until the file that is too large stands alone."""
        try:
            total.add(self._estimated(collection, files, **made))
        except TooLarge as error:
            if len(files) == 1:
                total.refuse(files[0], error)
                return
            middle = len(files) // 2
            self._add(total, collection, files[:middle], **made)
            self._add(total, collection, files[middle:], **made)

    def _estimated(
        self,
        collection: str,
        files: Sequence[Upload],
        *,
        model: str | None,
        chunking: Chunking | None,
        priority: Priority,
    ) -> Estimate:
        with worded(UploadForm):
            described = UploadForm(documents=[file.fields() for file in files])
        form = {"documents": described.model_dump_json(include={"documents"})}
        cut = {} if chunking is None else chunking.model_dump(exclude_none=True)

        def content(opened: ExitStack) -> dict[str, Any]:
            return {"data": form, "files": [("files", form_part(file, opened=opened)) for file in files]}

        path = self._path("collections", collection, "documents:estimate")
        params = {"texts": "true", "model": model, "priority": priority, **cut}
        return self._transport.send_files(path, Estimate, params=params, wait_s=LONGEST_ESTIMATE_S, content=content)


class _Sum:
    """Several answers added up: a text that two of them name is embedded once."""

    def __init__(self) -> None:
        self._sum: Estimate | None = None
        self._texts: dict[bytes, int] = {}
        self._refused: list[Unreadable] = []
        self._error: TooLarge | None = None

    def refuse(self, file: Upload, error: TooLarge) -> None:
        self._refused.append(Unreadable(source=file.source, code=error.code or "too_large", reason=str(error)))
        self._error = error

    def add(self, other: Estimate) -> None:
        new = _texts(other)
        if self._sum is None:
            self._sum, self._texts = other, new
            return
        again = [tokens for digest, tokens in new.items() if digest in self._texts]
        self._texts |= new
        before, after = self._sum, other
        speeds = [one.tokens / one.duration_s for one in (before, after) if one.duration_s]
        tokens = before.tokens + after.tokens - sum(again)
        price = after.price_per_million_tokens
        self._sum = after.model_copy(
            update={
                **{name: getattr(before, name) + getattr(after, name) for name in _ADDED},
                "unreadable": [*before.unreadable, *after.unreadable],
                "repeated": before.repeated + after.repeated + len(again),
                "embedded": before.embedded + after.embedded - len(again),
                "tokens": tokens,
                "cost_usd": None if price is None else tokens * price / 1e6,
                "duration_s": tokens / speeds[-1] if speeds else after.duration_s,
            }
        )

    def told(self) -> Estimate:
        """Return the sum. Raises TooLarge when every file was."""
        if self._sum is None:
            raise self._error or Invalid("there are no files to estimate", code="empty_submission", param="files")
        refused = len(self._refused)
        more = {"documents": self._sum.documents + refused, "failed": self._sum.failed + refused}
        return self._sum.model_copy(
            update={**more, "unreadable": [*self._sum.unreadable, *self._refused], "texts": None}
        )


_ADDED = ("documents", "unchanged", "failed", "chunks", "chunks_reused", "cache_hits")


def _texts(found: Estimate) -> dict[bytes, int]:
    return dict(_TEXT.iter_unpack(base64.b64decode(found.texts or "")))
