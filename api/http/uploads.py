"""Reads submissions, as JSON or as multipart forms, into documents for storage/intake.py. Accepts nothing itself.

What arrives is spooled to disk; memory holds the content of a submission once, when its turn has come.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Protocol, cast, get_args

import anyio.to_thread
from starlette.datastructures import UploadFile
from starlette.requests import Request

from penstock.client import wire
from penstock.client.wire import DocumentFields, JobChange, NewDocument, Submission, UploadForm
from penstock.pipeline.moments import given_time
from penstock.settings.model import Limits
from penstock.storage.errors import InvalidMetadata
from penstock.storage.intake.documents import SubmittedDocument
from penstock.storage.intake.submissions import check_times
from penstock.storage.metadata import check_metadata

from ..errors import Refused, refusal
from .bodies import bounded, check_is_json, media_type, parse_json
from .forms import SPOOLED_BYTES, files_of, received_form, text_of, too_many_documents

UNDECLARED = "application/octet-stream"  # what programs send that do not know better


@dataclass(frozen=True)
class Submitted:
    """What was submitted, and on which terms."""

    documents: list[SubmittedDocument]
    job_id: str | None
    webhook_url: str | None
    priority: wire.Priority
    budget_usd: float | None


class Arrived(Protocol):
    """A submission that is here completely, but not looked at. Used once, in a thread."""

    def read(self, limits: Limits) -> Submitted:
        """Return the documents with their bytes. Raises Refused naming the document that is wrong."""


@asynccontextmanager
async def arrived(request: Request, limits: Limits) -> AsyncIterator[Arrived]:
    """Receive a submission of either kind; its spooled files are gone when the block ends.

    Raises:
        Refused: 413 when it is larger than the limits, 415 when it is neither JSON nor a form, 400 when a form is
            incomplete or has fields that nobody asked for.
    """
    if media_type(request) == "multipart/form-data":
        async with received_form(request, limits) as form:
            yield _ArrivedForm(
                files=files_of(form),
                documents=text_of(form, "documents"),
                job_id=text_of(form, "job_id"),
                webhook_url=text_of(form, "webhook_url"),
                priority=text_of(form, "priority"),
                budget_usd=text_of(form, "budget_usd"),
            )
    else:
        check_is_json(request)
        with SpooledTemporaryFile(max_size=SPOOLED_BYTES) as body:
            await _spool(bounded(request, limit_bytes=limits.max_submission_bytes), body)
            yield _ArrivedJson(body)


async def _spool(chunks: AsyncIterator[bytes], file: "SpooledTemporaryFile[bytes]") -> None:
    on_disk = False
    async for chunk in chunks:
        if on_disk:
            await anyio.to_thread.run_sync(file.write, chunk)
        else:
            file.write(chunk)
            on_disk = file.tell() > SPOOLED_BYTES


@dataclass(frozen=True)
class _ArrivedJson:
    body: IO[bytes]

    def read(self, limits: Limits) -> Submitted:
        self.body.seek(0)
        submission = parse_json(self.body.read(), Submission)
        _check_count(len(submission.documents), limits)
        documents = list(_decoded(submission.documents, limits))
        asked = (submission.job_id, submission.webhook_url, submission.priority, submission.budget_usd)
        return Submitted(documents, *asked)


def _decoded(documents: list[NewDocument], limits: Limits) -> Iterator[SubmittedDocument]:
    """Yield documents with their bytes, letting go of each text as it is encoded."""
    documents.reverse()
    for position in range(len(documents)):
        document = documents.pop()
        data = _content(document, position)
        _check_size(len(data), position, limits)
        yield _submitted(document, data, position, media_type=_media_type(document))


def _content(document: NewDocument, position: int) -> bytes:
    if (document.text is None) == (document.content_base64 is None):
        raise Refused(
            f"document {document.source!r} needs exactly one of 'text' and 'content_base64'",
            param=f"documents[{position}]",
        )
    if document.text is not None:
        return document.text.encode()
    try:
        return base64.b64decode(document.content_base64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            f"document {document.source!r} has content that is not base64: {error}",
            code="invalid_base64",
            param=f"documents[{position}].content_base64",
        ) from error


def _media_type(document: NewDocument) -> str | None:
    if document.text is not None and document.media_type is None and document.filename is None:
        return "text/plain"  # a source may end in .pdf, the text taken from it is none
    return document.media_type


@dataclass(frozen=True)
class _ArrivedForm:
    files: Sequence[UploadFile]
    documents: str | None
    job_id: str | None
    webhook_url: str | None
    priority: str | None
    budget_usd: str | None

    def read(self, limits: Limits) -> Submitted:
        _check_count(len(self.files), limits)
        documents = list(self._read(self._fields(), limits))
        asked = (self.job_id, self.webhook_url, _priority(self.priority), _budget(self.budget_usd))
        return Submitted(documents, *asked)

    def _fields(self) -> Sequence[DocumentFields]:
        if self.documents is None:
            return [_unsaid(file, position) for position, file in enumerate(self.files)]
        body = self.documents.strip()
        if body.startswith("["):
            body = f'{{"documents": {body}}}'
        fields = parse_json(body.encode(), UploadForm).documents
        if len(fields) != len(self.files):
            raise Refused(
                f"{len(self.files)} files came with {len(fields)} entries in 'documents': send one entry per file, "
                "in the same order",
                param="documents",
            )
        return fields

    def _read(self, fields: Sequence[DocumentFields], limits: Limits) -> Iterator[SubmittedDocument]:
        for position, (said, file) in enumerate(zip(fields, self.files, strict=True)):
            _check_size(file.size or 0, position, limits)
            with file.file as content:
                data = content.read()
            declared = said.media_type or file.content_type
            named = said if said.filename or not file.filename else said.model_copy(update={"filename": file.filename})
            yield _submitted(named, data, position, media_type=None if declared == UNDECLARED else declared)


def _priority(said: str | None) -> wire.Priority:
    for known in get_args(wire.Priority):
        if (said or "normal") == known:
            return cast("wire.Priority", known)
    raise Refused(f"there is no priority {said!r}: use {', '.join(get_args(wire.Priority))}", param="priority")


def _budget(said: str | None) -> float | None:
    if said is None:
        return None
    try:
        return JobChange.model_validate({"budget_usd": float(said)}).budget_usd
    except ValueError as error:
        raise Refused(f"budget_usd={said}: write US dollars as a number from 0", param="budget_usd") from error


def _unsaid(file: UploadFile, position: int) -> DocumentFields:
    if not file.filename:
        raise Refused("a file without a name needs an entry in 'documents'", param=f"files[{position}]")
    return DocumentFields(source=file.filename)


def _submitted(said: DocumentFields, data: bytes, position: int, *, media_type: str | None) -> SubmittedDocument:
    filename = said.filename or PurePosixPath(said.source).name or said.source
    for name, value in (("source", said.source), ("filename", filename), ("title", said.title)):
        if value is not None and "\x00" in value:
            raise Refused(f"{name!r} has a NUL character", param=f"documents[{position}].{name}")
    try:
        check_metadata(said.metadata)
    except InvalidMetadata as error:
        raise Refused(
            f"document {said.source!r}: {error}", code="invalid_metadata", param=f"documents[{position}].metadata"
        ) from error
    try:
        submitted = SubmittedDocument(
            source=said.source,
            filename=filename,
            data=data,
            media_type=media_type,
            title=said.title,
            metadata=said.metadata,
            event_time=given_time(said.event_time, param="event_time", source=said.source),
            expires_at=given_time(said.expires_at, param="expires_at", source=said.source),
        )
        check_times(submitted)
    except InvalidMetadata as error:
        raise refusal(error, param=f"documents[{position}].{error.param}") or error from error
    return submitted


def _check_count(count: int, limits: Limits) -> None:
    if count == 0:
        raise Refused("the submission has no documents", code="empty_submission", param="documents")
    if count > limits.max_documents_per_submission:
        raise too_many_documents(limits)


def _check_size(size_bytes: int, position: int, limits: Limits) -> None:
    if size_bytes > limits.max_document_bytes:
        raise Refused(
            f"a document of {size_bytes:,} bytes is too large: this server takes {limits.max_document_bytes:,}",
            status=413,
            code="document_too_large",
            param=f"documents[{position}]",
        )
