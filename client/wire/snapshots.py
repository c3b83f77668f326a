"""Snapshots: the versions of a collection."""

from typing import Literal

from pydantic import Field

from .messages import Answer


class SnapshotOrigin(Answer):
    """The version whose segments a rollback or a fork began with."""

    generation: str
    version: int


class Snapshot(Answer):
    """One version of a collection that is kept."""

    version: int
    operation: Literal["publish", "merge", "rollback", "fork", "repair", "switch"] = Field(description="what made it")
    origin: SnapshotOrigin | None
    current: bool
    created_at: float
    followed_at: float | None = Field(description="when the next version came")
    segments: int
    chunks: int
    size_bytes: int = Field(description="of all its files, those that other versions share included")
    tags: list[str] = Field(description="names that keep it from being forgotten")
    token: str


class SnapshotSegment(Answer):
    id: str
    kind: Literal["flat", "graph"]
    chunks: int = Field(description="live ones")
    deleted: int
    size_bytes: int


class SnapshotDetails(Snapshot):
    parts: list[SnapshotSegment]


class SnapshotList(Answer):
    """Newest first. ``last_version`` as ``before`` gives the next page."""

    data: list[Snapshot]
    has_more: bool
    last_version: int | None


class Rollback(Answer):
    """A rollback to ``version``. The writer of the collection carries it out in the order of all that is published."""

    id: str
    version: int
    state: Literal["waiting", "done", "failed"]
    error: str | None
    published: int | None = Field(description="version that serves it since; null while it waits, or when it failed")
    created_at: float
    finished_at: float | None
    token: str | None = Field(description="`min_token` of a search that must see it")


class DocumentChange(Answer):
    """A document that two versions of a collection serve differently."""

    id: str
    source: str
    title: str | None
    change: Literal["added", "changed", "removed"]
    version_before: int | None = Field(description="number of the document's version")
    version_after: int | None
    chunks_before: int
    chunks_after: int


class SnapshotDiff(Answer):
    """``added``, ``changed`` and ``removed`` count all; ``last_id`` as ``after`` gives the next page of documents.

    ``documents`` are by id in each page; which of them are in which page has no meaning.
    """

    before: int
    after: int
    added: int
    changed: int
    removed: int
    documents: list[DocumentChange]
    has_more: bool
    last_id: str | None
