"""What travels over the queue to the search role: JSON in, JSON out, in the words of the HTTP interface.

Whoever can write to the broker is trusted: the tenant in a message is not proved by a key.
"""

import base64
import binascii
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from penstock.pipeline.errors import (
    InputRejected,
    InvalidFilter,
    InvalidQuery,
    NoOrders,
    ProviderMisconfigured,
    ProviderUnavailable,
)
from penstock.pipeline.moments import given_time
from penstock.storage.errors import (
    AlreadyExists,
    BacklogFull,
    Conflict,
    Damaged,
    FilterMismatch,
    InvalidMetadata,
    InvalidName,
    KeyReused,
    NotFound,
    NotKept,
    NotYet,
    OverBudget,
    TooMuchAtOnce,
    Unavailable,
    Unsupported,
)
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.limits import MAX_IDEMPOTENCY_KEY_CHARACTERS, MAX_REMOVED_AT_ONCE

from .errors import InvalidRequest, TooManyWaits

# The first class an error is an instance of decides. The codes are those of the HTTP interface.
CODES: tuple[tuple[type[Exception], str], ...] = (
    (InvalidRequest, "invalid_request"),
    (InvalidMetadata, "invalid_metadata"),
    (InvalidName, "invalid_name"),
    (InvalidFilter, "invalid_filter"),
    (FilterMismatch, "invalid_filter"),
    (InvalidQuery, "invalid_query"),
    (NotKept, "version_not_kept"),
    (NotFound, "not_found"),
    (AlreadyExists, "already_exists"),
    (KeyReused, "idempotency_key_reused"),
    (Conflict, "conflict"),
    (TooMuchAtOnce, "backlog_limit"),
    (BacklogFull, "backlog_full"),
    (OverBudget, "over_budget"),
    (NotYet, "not_yet"),
    (TooManyWaits, "too_many_waits"),
    (Damaged, "damaged"),
    (Unsupported, "unsupported"),
    (Unavailable, "unavailable"),
    (NoOrders, "no_economy"),
    (InputRejected, "query_rejected"),
    (ProviderUnavailable, "embedding_unavailable"),
    (ProviderMisconfigured, "embedding_misconfigured"),
)


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


RequestT = TypeVar("RequestT", bound=Request)


class SearchRequest(Request):
    """The keyword arguments of `penstock.search`: exactly one of ``query`` and ``vector``."""

    tenant: str
    collection: str
    query: str | None = None
    vector: list[float] | None = None
    k: int = 10
    filter: Any = None
    ef: int | None = None
    min_token: str | None = None
    version: int | None = Field(default=None, ge=0, le=10**18)
    tag: str | None = None
    as_of: float | str | None = None  # seconds since 1970, or ISO 8601
    timeout_s: float = Field(default=5.0, ge=0.0, le=30.0)
    explain: bool = False


class DocumentRequest(Request):
    """A document with its content: exactly one of ``text`` and ``content_base64``."""

    source: str = Field(min_length=1)
    filename: str | None = None
    media_type: str | None = None
    title: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    event_time: float | str | None = None  # seconds since 1970, or ISO 8601
    expires_at: float | str | None = None
    text: str | None = None
    content_base64: str | None = None

    def submitted(self) -> SubmittedDocument:
        """Return the document with its bytes. Raises InvalidRequest, InvalidMetadata."""
        is_text = self.text is not None and self.media_type is None and self.filename is None
        return SubmittedDocument(
            source=self.source,
            filename=self.filename or PurePosixPath(self.source).name or self.source,
            data=self._content(),
            media_type="text/plain" if is_text else self.media_type,  # a source may end in .pdf, its text is none
            title=self.title,
            metadata=self.metadata,
            event_time=given_time(self.event_time, param="event_time", source=self.source),
            expires_at=given_time(self.expires_at, param="expires_at", source=self.source),
        )

    def _content(self) -> bytes:
        if (self.text is None) == (self.content_base64 is None):
            raise InvalidRequest(f"document {self.source!r} needs exactly one of 'text' and 'content_base64'")
        if self.text is not None:
            return self.text.encode("utf-8", "replace")
        try:
            return base64.b64decode(self.content_base64 or "", validate=True)
        except binascii.Error as error:
            raise InvalidRequest(f"document {self.source!r} has content that is not base64: {error}") from error


class SubmitRequest(Request):
    """The keyword arguments of `penstock.submit`: documents that are accepted together or not at all."""

    tenant: str
    collection: str
    documents: list[DocumentRequest] = Field(min_length=1)
    job_id: str | None = None
    idempotency_key: str | None = Field(
        default=None, pattern="^[!-~]+$", min_length=1, max_length=MAX_IDEMPOTENCY_KEY_CHARACTERS
    )
    priority: Literal["high", "normal", "low", "economy"] = "normal"
    budget_usd: float | None = Field(default=None, ge=0.0, le=1e9)  # of the whole job; None: as before, or none


class DeleteRequest(Request):
    """The keyword arguments of `penstock.delete`: ``ids``, ``sources`` or both, or ``filter`` alone."""

    tenant: str
    collection: str
    ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    if_versions: dict[str, int] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    filter: Any = None
    min_token: str | None = None
    timeout_s: float = Field(default=5.0, ge=0.0, le=30.0)
    dry_run: bool = False


class JobRequest(Request):
    """The keyword arguments of `penstock.job`."""

    tenant: str
    job_id: str


def job_request(values: dict[str, Any]) -> JobRequest:
    """Raises InvalidRequest, naming the field and quoting no value."""
    return _checked(JobRequest, values)


def delete_request(values: dict[str, Any]) -> DeleteRequest:
    """Raises InvalidRequest, naming the field and quoting no value."""
    return _checked(DeleteRequest, values)


def search_request(values: dict[str, Any]) -> SearchRequest:
    """Raises InvalidRequest, naming the field and quoting no value."""
    return _checked(SearchRequest, values)


def submit_request(values: dict[str, Any]) -> SubmitRequest:
    """Raises InvalidRequest, naming the field and quoting no value."""
    return _checked(SubmitRequest, values)


def refusal(error: Exception) -> dict[str, Any] | None:
    """Return the answer for an error that the caller can understand; None for a defect of this program."""
    for kind, code in CODES:
        if isinstance(error, kind):
            later = {"retry_after_s": error.retry_after_s} if isinstance(error, BacklogFull | TooManyWaits) else {}
            return {"error": {"code": code, "message": str(error), **later}}
    return None


def _checked(kind: type[RequestT], values: dict[str, Any]) -> RequestT:
    try:
        return kind(**values)
    except ValidationError as error:
        raise _worded(error) from error


def _worded(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    return InvalidRequest(f"{field}: {first['msg']}")
