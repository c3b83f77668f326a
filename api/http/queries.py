"""Query parameters of the list routes. Unknown ones are refused like unknown fields."""

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from penstock.client.wire import DocumentState, Request

from ..errors import Refused
from .bodies import worded_problem


class DocumentsQuery(Request):
    state: DocumentState | None = Field(default=None, description="only documents whose newest version is so")
    source: str | None = Field(default=None, pattern=r"^[^\x00]*$", description="only the document of this source")
    after: str | None = Field(default=None, pattern="^[a-z0-9_]{1,64}$", description="`last_id` of the page before")
    limit: int = Field(default=100, ge=1, le=1000)


class JobsQuery(Request):
    after: str | None = Field(default=None, pattern="^[a-z0-9_]{1,64}$", description="`last_id` of the page before")
    limit: int = Field(default=20, ge=1, le=100)


class JobQuery(Request):
    wait: float = Field(
        default=0.0,
        ge=0,
        le=30,
        description="answer when the job is not running any more, at most so many seconds later",
    )


class IndexQuery(Request):
    probe: int = Field(
        default=0, ge=0, le=200, description="search for so many rows, for at most a few seconds, and tell the recall"
    )


class SnapshotsQuery(Request):
    before: int | None = Field(default=None, ge=1, description="`last_version` of the page before")
    limit: int = Field(default=100, ge=1, le=1000)


class DiffQuery(Request):
    to: str = Field(default="current", min_length=1, max_length=64, description="the later version; any name of it")
    after: str | None = Field(default=None, pattern="^[a-z0-9_]{1,64}$", description="`last_id` of the page before")
    limit: int = Field(default=1000, ge=1, le=10_000)


class RollbackQuery(Request):
    wait: float = Field(
        default=0.0, ge=0, le=30, description="answer when it does not wait any more, at most so many seconds later"
    )


class TagQuery(Request):
    move: bool = Field(default=False, description="take the name from another version")


QUERIES = (DocumentsQuery, JobsQuery, JobQuery, IndexQuery, SnapshotsQuery, DiffQuery, TagQuery, RollbackQuery)


def refused_parameters(problems: Sequence[Any]) -> Refused:
    """Return what to answer for query parameters, from the framework's list of what is wrong with them."""
    first = problems[0]
    name = str(first["loc"][-1])
    known = dict.fromkeys(name for query in QUERIES for name in query.model_fields)
    return Refused(worded_problem(name, first["type"], first["msg"], known=known), param=name)
