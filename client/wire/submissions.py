"""Submitting documents, and asking before which are known."""

from hashlib import blake2b
from typing import Annotated, Any, Literal

from pydantic import Field

from .jobs import Job
from .messages import Answer, Budget, Request

LONGEST_SOURCE = 2048
Priority = Literal["high", "normal", "low", "economy"]
PRIORITY = (
    "before which other documents of this tenant these come; those of other tenants do not notice; `economy`: after "
    "all others, embedded within a day for half the price, where the model's provider takes orders"
)
BUDGET = "what the whole job may cost in US dollars; null: as before, and of a new job whatever it costs"
Moment = Annotated[
    float | str, Field(description="seconds since 1970, or ISO 8601: UTC unless an offset says otherwise")
]


def content_hash(data: bytes) -> str:
    """Return the name of a document's bytes: blake2b-256 as 64 hex digits."""
    return blake2b(data, digest_size=32).hexdigest()


class DocumentFields(Request):
    """What a producer says about a document.

    ``source`` is the producer's own name for it (a path, a URL, a key), unique in the collection: submitting it
    again makes a new version. ``event_time`` is when its content happened; it is not found from ``expires_at`` on.
    Both are seconds since 1970 or text in ISO 8601, as in ``as_of`` of a search.
    """

    source: str = Field(min_length=1, max_length=LONGEST_SOURCE)
    filename: str | None = Field(default=None, min_length=1, max_length=4096)
    media_type: str | None = Field(default=None, min_length=1, max_length=255)
    title: str | None = Field(default=None, max_length=4096)
    metadata: dict[str, Any] = Field(default_factory=dict)
    event_time: Moment | None = None
    expires_at: Moment | None = None


class NewDocument(DocumentFields):
    """A document with its content: exactly one of ``text`` and ``content_base64``."""

    text: str | None = None
    content_base64: str | None = None


class Submission(Request):
    """Documents accepted together or not at all. ``job_id`` adds them to a job that is still running."""

    documents: list[NewDocument] = Field(min_length=1)
    job_id: str | None = None
    webhook_url: str | None = Field(default=None, description="https URL that is told, signed, when the job ends")
    priority: Priority = Field(default="normal", description=PRIORITY)
    budget_usd: Budget | None = Field(default=None, description=BUDGET)


class UploadForm(Request):
    """The form fields beside ``files``: what is said about the n-th file, in their order."""

    documents: list[DocumentFields] = Field(min_length=1)
    job_id: str | None = None
    webhook_url: str | None = None
    priority: Priority = Field(default="normal", description=PRIORITY)
    budget_usd: Budget | None = Field(default=None, description=BUDGET)


class SourceHash(Request):
    source: str = Field(min_length=1, max_length=LONGEST_SOURCE)
    content_hash: str = Field(pattern="^[0-9a-f]{64}$", description="blake2b-256 of the document's bytes, in hex")


class KnownQuery(Request):
    documents: list[SourceHash] = Field(max_length=10_000)


class Known(Answer):
    known: list[str] = Field(description="sources whose newest version has exactly this content and did not fail")
    dead: list[str] = Field(default=[], description="those whose newest version has exactly this content, and failed")


class Submitted(Answer):
    """What was taken. From here on each accepted document becomes indexed, or failed with its reason."""

    job: Job
    accepted: int
    replaced: int = Field(description="how many of the accepted are new versions of documents that were here")
    unchanged: int
    pending: int = Field(default=0, description="documents of this submission that are not searchable or failed yet")
    token: str | None = Field(
        default=None, description="`min_token` of a search that finds them all; null while any is pending"
    )
