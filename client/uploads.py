"""A file to submit, and how it becomes part of a form. Opens nothing before it is sent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from .wire import DocumentFields

REQUEST_BYTES, REQUEST_FILES = 8 << 20, 200  # of one request
FileT = TypeVar("FileT")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file to submit: ``content`` is its bytes, or the path to read them from while sending.

    Times are seconds since 1970, or text in ISO 8601.
    """

    content: bytes | Path
    source: str
    filename: str | None = None
    media_type: str | None = None
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    event_time: float | str | None = None
    expires_at: float | str | None = None

    @property
    def size_bytes(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)

    @property
    def sent_name(self) -> str:
        if self.filename is not None:
            return self.filename
        return self.content.name if isinstance(self.content, Path) else self.source.rsplit("/", 1)[-1] or "document"

    def fields(self) -> DocumentFields:
        return DocumentFields(
            source=self.source,
            filename=self.sent_name,
            media_type=self.media_type,
            title=self.title,
            metadata=dict(self.metadata),
            event_time=self.event_time,
            expires_at=self.expires_at,
        )


def in_requests(
    files: Sequence[FileT], size_of: Callable[[FileT], int], *, most_files: int = REQUEST_FILES
) -> Iterator[list[FileT]]:
    """Yield groups of files, in order, each small enough for one request. A file above the bound goes alone.

    ``size_of``: its bytes.
    """
    request: list[FileT] = []
    size_bytes = 0
    for file in files:
        length = size_of(file)
        if request and (len(request) >= most_files or size_bytes + length > REQUEST_BYTES):
            yield request
            request, size_bytes = [], 0
        request.append(file)
        size_bytes += length
    if request:
        yield request


def form_part(file: Upload, *, opened: ExitStack) -> tuple[Any, ...]:
    """Return the file as httpx takes it; what had to be opened is closed with ``opened``."""
    content = opened.enter_context(file.content.open("rb")) if isinstance(file.content, Path) else file.content
    return (file.sent_name, content, file.media_type or "application/octet-stream")
