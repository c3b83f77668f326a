"""Reads multipart forms: bounded, spooled to disk, and only whole ones. What the fields mean is not known here."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from penstock.settings.model import Limits

from ..errors import Refused
from .bodies import bounded

SPOOLED_BYTES = 1 << 20  # more of a file goes to disk
FORM_FIELD_BYTES = 32 << 20  # `documents` of a form: fields and metadata of all files
FORM_FIELDS = ("files", "documents", "job_id", "webhook_url", "priority", "budget_usd")


class _WholeMultiPartParser(MultiPartParser):
    """Refuses a form whose closing boundary never came: its last part is missing, and the parser does not mind."""

    spool_max_size = SPOOLED_BYTES

    def __init__(self, request: Request, limits: Limits) -> None:
        super().__init__(
            request.headers,
            self._whole(bounded(request, limit_bytes=limits.max_submission_bytes)),
            max_files=limits.max_documents_per_submission,
            max_fields=len(FORM_FIELDS) + 1,
            max_part_size=min(FORM_FIELD_BYTES, limits.max_submission_bytes),
        )
        self._ended = False

    def on_end(self) -> None:
        self._ended = True

    async def _whole(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._ended:  # raised where the parser still closes what it has opened
            raise Refused("the form ends before its last boundary: it was cut off on the way", code="invalid_form")


@asynccontextmanager
async def received_form(request: Request, limits: Limits) -> AsyncIterator[FormData]:
    """Receive a form with ``files`` and perhaps the other `FORM_FIELDS`; its files are gone when the block ends.

    Raises:
        Refused: 413 when it is larger than the limits, 400 when it is incomplete or has fields nobody asked for.
    """
    form = await _parsed_form(request, limits)
    try:
        yield form
    finally:
        await form.close()


async def _parsed_form(request: Request, limits: Limits) -> FormData:
    try:
        form = await _WholeMultiPartParser(request, limits).parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise too_many_documents(limits) from error
        raise Refused(f"the form cannot be read: {error.message}", code="invalid_form") from error
    try:
        _check_form(form)
    except Refused:
        await form.close()
        raise
    return form


def too_many_documents(limits: Limits) -> Refused:
    """Return what to answer when there are more than the limit."""
    return Refused(
        f"more than {limits.max_documents_per_submission:,} documents in one submission: send several",
        status=413,
        code="too_many_documents",
        param="documents",
    )


def _check_form(form: FormData) -> None:
    for name, value in form.multi_items():
        if name not in FORM_FIELDS:
            raise Refused(f"unknown form field {name!r}: there are {', '.join(FORM_FIELDS)}", param=name)
        if isinstance(value, UploadFile) != (name == "files"):
            kind = "files" if name == "files" else "text"
            raise Refused(f"form field {name!r} takes {kind}", param=name)
    for name in FORM_FIELDS[1:]:
        if len(form.getlist(name)) > 1:
            raise Refused(f"form field {name!r} is there more than once", param=name)


def files_of(form: FormData) -> list[UploadFile]:
    return [value for value in form.getlist("files") if isinstance(value, UploadFile)]


def text_of(form: FormData, name: str) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) else None
