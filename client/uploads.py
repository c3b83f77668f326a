"""A file to submit, and how it becomes part of a form. Opens nothing before it is sent."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .wire import DocumentFields


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


def form_part(file: Upload, *, opened: ExitStack) -> tuple[Any, ...]:
    """Return the file as httpx takes it; what had to be opened is closed with ``opened``."""
    content = opened.enter_context(file.content.open("rb")) if isinstance(file.content, Path) else file.content
    return (file.sent_name, content, file.media_type or "application/octet-stream")
