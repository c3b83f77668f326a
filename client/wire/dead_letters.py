"""Dead documents: which are meant, and what became of them."""

from typing import Literal

from pydantic import Field

from .changes import MAX_REMOVED_AT_ONCE
from .documents import DocumentName
from .jobs import Job
from .messages import Answer, Request
from .searches import Filter

RefusalCode = Literal["not_found", "not_dead", "newer_version", "bytes_gone", "nothing_to_describe"]


class DeadSelection(Request):
    """``ids``, ``sources`` or both; or what dead documents have in common, all of it; or ``all`` of the collection.

    A filter is asked of what was submitted: metadata, and the built-in fields. Which documents are meant is decided
    once: what dies later is not among them. ``dry_run`` only says what would be done.
    """

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    job_id: str | None = Field(default=None, max_length=64, description="those that died in this job")
    error_code: str | None = Field(default=None, max_length=64)
    stage: str | None = Field(default=None, max_length=16, description="where they died: chunk, embed or index")
    filter: Filter | None = None
    all: bool = False
    dry_run: bool = False
    with_ids: bool = Field(default=False, description="name all that are, or would be, retried or dropped, as `ids`")


class RefusedDocument(Answer):
    """A document that stays as it is. ``source`` is null where nothing is known of it; ``id`` is what was named."""

    id: str
    source: str | None
    code: RefusalCode
    reason: str


class Retried(Answer):
    """From here on each of the ``retried`` becomes indexed, or dead once more, with its new reason.

    ``refused`` counts those that stay as they are, by code.
    """

    job: Job | None = Field(description="null where nothing was retried, and after a dry run")
    retried: int = Field(description="after a dry run: that would be")
    refused: dict[RefusalCode, int]
    sample: list[DocumentName] = Field(description="some of those that are retried, at most 10")
    refusals: list[RefusedDocument] = Field(description="some of those that are refused, at most 10")
    ids: list[str] | None = Field(default=None, description="all of those that are retried, where `with_ids` asks")


class Dropped(Answer):
    """The ``dropped`` are dead no more: they are what was indexed of them before, or gone."""

    dropped: int = Field(description="after a dry run: that would be")
    refused: dict[RefusalCode, int]
    sample: list[DocumentName] = Field(description="some of those that are dropped, at most 10")
    refusals: list[RefusedDocument] = Field(description="some of those that are refused, at most 10")
    ids: list[str] | None = Field(default=None, description="all of those that are dropped, where `with_ids` asks")
