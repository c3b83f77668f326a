"""Deleting documents and chunks, and describing documents anew."""

from typing import Any

from pydantic import Field

from .documents import DocumentName
from .jobs import Job
from .messages import Answer, Request
from .searches import Filter
from .submissions import Moment

MAX_REMOVED_AT_ONCE = 10_000  # ids or sources in one request; a filter may accept more


class Deletion(Request):
    """``ids``, ``sources`` or both, or ``filter`` alone. ``dry_run`` only says what would be deleted.

    A filter is resolved once, against the newest version there is when it is asked (at least that of ``min_token``):
    documents that arrive later are not deleted.
    """

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    if_versions: dict[str, int] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_REMOVED_AT_ONCE,
        description="by source, of those in `sources`: only where the newest version still has this number",
    )
    filter: Filter | None = None
    min_token: str | None = Field(default=None, description="resolve the filter in a snapshot that covers this token")
    dry_run: bool = False
    with_ids: bool = Field(default=False, description="with `dry_run`: name all that would be deleted, as `ids`")


class Deleted(Answer):
    """What was taken: from here on each of the ``deleted`` leaves, or is listed as failed with its reason.

    A document that is named twice, by id and by source, counts once.
    """

    job: Job | None = Field(description="null after a dry run")
    deleted: int = Field(description="documents that leave; after a dry run, that would leave")
    already_deleted: int = Field(description="documents that left before, expired ones included, or are about to")
    not_found: int = Field(description="ids or sources of which nothing is known")
    changed: int = Field(default=0, description="documents whose version is not the one in `if_versions`: they stay")
    sample: list[DocumentName] = Field(description="some of those that leave, at most 10")
    missing: list[str] = Field(description="some of the ids or sources that were not found, at most 10")
    stayed: list[DocumentName] = Field(default_factory=list, description="some of the `changed`, at most 10")
    ids: list[str] | None = Field(default=None, description="all that would be deleted, where `with_ids` asks")


class DocumentUpdate(Request):
    """What is given is changed; null takes a title or a time away. The text stays, and nothing is embedded again.

    ``metadata`` is a JSON merge patch (RFC 7396): fields are merged, null takes one away. ``replace_metadata`` replaces
    all of it.
    """

    title: str | None = Field(default=None, max_length=4096)
    metadata: dict[str, Any] | None = None
    replace_metadata: dict[str, Any] | None = None
    event_time: Moment | None = None
    expires_at: Moment | None = None


class Updated(Answer):
    """``changed`` is false when the document says all that already. ``version`` is its number from now on."""

    job: Job
    changed: bool
    version: int


class ChunkDeletion(Request):
    """Ids of chunks, as searches give them. ``min_token``: of that search, or a later one."""

    chunk_ids: list[int] = Field(min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    min_token: str | None = None


class ChunksDeleted(Answer):
    """``not_found``: chunks that no document has any more. A new version of a document brings all its chunks."""

    job: Job
    deleted: int
    not_found: int
