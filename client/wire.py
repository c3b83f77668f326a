"""What travels over HTTP: the requests and answers, shared by the client and the server.

Requests refuse unknown fields, so that a misspelt one is never ignored. Answers accept them, so that an older client
reads a newer server. Times are seconds since 1970. Nothing here talks to anybody.
"""

import base64
import sys
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Metric = Literal["cosine", "dot", "l2"]
Quantization = Literal["none", "int8"]
JobState = Literal["running", "done", "cancelled"]
DocumentState = Literal[
    "queued",
    "chunking",
    "embedding",
    "indexing",
    "indexed",
    "failed",
    "cancelled",
    "superseded",
    "deleting",
    "deleted",
    "expired",
]
Name = str  # of a tenant or a collection: 1 to 64 of a-z, 0-9, '-' and '_'
LONGEST_SOURCE = 2048
MAX_REMOVED_AT_ONCE = 10_000  # ids or sources in one request; a filter may accept more


def content_hash(data: bytes) -> str:
    """Return the name of a document's bytes: blake2b-256 as 64 hex digits."""
    return blake2b(data, digest_size=32).hexdigest()


def packed_vector(vector: Iterable[float]) -> str:
    """Return a vector as base64 of little-endian float32, a third of its size as JSON numbers."""
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode("ascii")


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# Tenants and collections


class NewTenant(Request):
    name: Name


class Tenant(Answer):
    name: Name
    created_at: float


class Chunking(Request):
    """How documents are cut. Sizes are in tokens; None leaves the choice to the server and the model's input limit."""

    strategy: Literal["auto", "recursive", "tokens"] = "auto"
    size_tokens: int | None = Field(default=None, ge=4, le=100_000)
    overlap_tokens: int | None = Field(default=None, ge=0)


class NewCollection(Request):
    """What is left out is the server's default. ``quantization`` int8 takes a third of the memory for large indexes."""

    name: Name
    model: str | None = None
    chunking: Chunking | None = None
    metric: Metric | None = None
    quantization: Quantization | None = None


class CollectionChange(Request):
    """What is given is changed. Null: as the server has it for all collections."""

    keep_versions: int | None = Field(default=None, ge=1, le=1_000_000, description="newest versions that are kept")
    keep_s: float | None = Field(default=None, ge=0, description="how long others are kept after they were followed")


class Fork(Request):
    """The collection to make of a version."""

    name: Name


class Collection(Answer):
    id: str
    name: Name
    created_at: float
    model: str
    dimensions: int
    metric: Metric
    quantization: Quantization
    chunking: dict[str, Any]
    version: int = Field(description="version of the published snapshot; 0 before the first")
    published_at: float | None
    chunks: int
    documents: dict[str, int] = Field(description="documents by the state of their newest version")
    token: str = Field(description="`min_token` of a search that must see the published snapshot")
    keep_versions: int | None = Field(default=None, description="newest versions kept; null: the server's own number")
    keep_s: float | None = Field(default=None, description="how long others are kept; null: the server's own time")


# Submitting


class DocumentFields(Request):
    """What a producer says about a document.

    ``source`` is the producer's own name for it (a path, a URL, a key), unique in the collection: submitting it
    again makes a new version. ``event_time`` is when its content happened; it is not found after ``expires_at``.
    """

    source: str = Field(min_length=1, max_length=LONGEST_SOURCE)
    filename: str | None = Field(default=None, min_length=1, max_length=4096)
    media_type: str | None = Field(default=None, min_length=1, max_length=255)
    title: str | None = Field(default=None, max_length=4096)
    metadata: dict[str, Any] = Field(default_factory=dict)
    event_time: float | None = None
    expires_at: float | None = None


class NewDocument(DocumentFields):
    """A document with its content: exactly one of ``text`` and ``content_base64``."""

    text: str | None = None
    content_base64: str | None = None


class Submission(Request):
    """Documents accepted together or not at all. ``job_id`` adds them to a job that is still running."""

    documents: list[NewDocument] = Field(min_length=1)
    job_id: str | None = None


class UploadForm(Request):
    """The form fields beside ``files``: what is said about the n-th file, in their order."""

    documents: list[DocumentFields] = Field(min_length=1)
    job_id: str | None = None


class SourceHash(Request):
    source: str = Field(min_length=1, max_length=LONGEST_SOURCE)
    content_hash: str = Field(pattern="^[0-9a-f]{64}$", description="blake2b-256 of the document's bytes, in hex")


class KnownQuery(Request):
    documents: list[SourceHash] = Field(max_length=10_000)


class Known(Answer):
    known: list[str] = Field(description="sources whose newest version has exactly this content and did not fail")


class Job(Answer):
    id: str
    collection: Name
    state: JobState
    created_at: float
    finished_at: float | None
    documents: dict[str, int] = Field(description="documents of this job by state")
    chunks_total: int
    chunks_embedded: int
    chunks_indexed: int
    cache_hits: int = Field(description="chunks whose vectors were in the cache")
    unchanged: int = Field(description="submitted documents that were already here")
    token: str | None = Field(description="`min_token` of a search that must see what this job has indexed so far")

    @property
    def failed(self) -> int:
        return self.documents.get("failed", 0)


class Submitted(Answer):
    """What was taken. From here on each accepted document becomes indexed, or failed with its reason."""

    job: Job
    accepted: int
    replaced: int = Field(description="how many of the accepted are new versions of documents that were here")
    unchanged: int


class Document(Answer):
    id: str
    source: str
    title: str | None
    filename: str
    media_type: str | None
    size_bytes: int
    metadata: dict[str, Any]
    event_time: float | None
    expires_at: float | None
    version: int = Field(description="number of the newest version, from 1")
    state: DocumentState
    stage: str | None = Field(description="where it failed")
    error_code: str | None
    error: str | None
    chunks: int | None
    created_at: float
    finished_at: float | None
    indexed_version: int | None = Field(description="snapshot version that first served it")
    job_id: str


# Changing and removing


class Deletion(Request):
    """Exactly one of ``ids``, ``sources`` and ``filter``. ``dry_run`` only says what would be deleted.

    A filter is resolved once, against the newest version there is when it is asked (at least that of ``min_token``):
    documents that arrive later are not deleted.
    """

    ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    sources: list[str] | None = Field(default=None, min_length=1, max_length=MAX_REMOVED_AT_ONCE)
    filter: dict[str, Any] | list[Any] | str | None = Field(
        default=None, description='`{"type": "eq", "key": "lang", "value": "en"}`, nested by `and` and `or`'
    )
    min_token: str | None = Field(default=None, description="resolve the filter in a snapshot that covers this token")
    dry_run: bool = False


class DocumentName(Answer):
    id: str
    source: str


class Deleted(Answer):
    """What was taken: from here on each of the ``deleted`` leaves, or is listed as failed with its reason."""

    job: Job | None = Field(description="null after a dry run")
    deleted: int = Field(description="documents that leave; after a dry run, that would leave")
    already_deleted: int = Field(description="documents that left before, expired ones included, or are about to")
    not_found: int = Field(description="ids or sources of which nothing is known")
    sample: list[DocumentName] = Field(description="some of those that leave, at most 10")
    missing: list[str] = Field(description="some of the ids or sources that were not found, at most 10")


class DocumentUpdate(Request):
    """What is given is changed; null takes a title or a time away. The text stays, and nothing is embedded again.

    ``metadata`` is a JSON merge patch (RFC 7396): fields are merged, null takes one away. ``replace_metadata`` replaces
    all of it.
    """

    title: str | None = Field(default=None, max_length=4096)
    metadata: dict[str, Any] | None = None
    replace_metadata: dict[str, Any] | None = None
    event_time: float | None = None
    expires_at: float | None = None


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


# Searching


class SearchQuery(Request):
    """Exactly one of ``query`` (text) and ``vector`` (numbers, or base64 of little-endian float32)."""

    query: str | None = Field(default=None, min_length=1, max_length=65_536)
    vector: list[float] | str | None = None
    k: int = Field(default=10, ge=1)
    filter: dict[str, Any] | list[Any] | str | None = Field(
        default=None, description='`{"type": "eq", "key": "lang", "value": "en"}`, nested by `and` and `or`'
    )
    ef: int | None = Field(
        default=None, ge=1, le=4096, description="how wide a graph is searched: higher finds more, slower"
    )
    min_token: str | None = Field(default=None, description="wait until the snapshot covers this token")
    version: int | None = Field(default=None, ge=0, le=10**18, description="search this version of the collection")
    tag: str | None = Field(default=None, min_length=1, max_length=64, description="search the version of this tag")
    as_of: float | str | None = Field(
        default=None,
        description="search what was current, and not expired, at this time: seconds since 1970, or ISO 8601",
    )
    explain: bool = False


class HitDocument(Answer):
    id: str
    source: str
    title: str | None
    metadata: dict[str, Any]
    version: int
    media_type: str


class Hit(Answer):
    """A chunk that was found. ``start`` and ``end`` are character offsets into the parsed text of the document."""

    chunk_id: int
    score: float = Field(description="higher is better; cosine and dot: inner product, l2: negative squared distance")
    text: str
    start: int
    end: int
    page: int | None
    heading: str | None
    document: HitDocument


class SearchResult(Answer):
    hits: list[Hit]
    version: int = Field(description="version of the snapshot that answered; 0 when nothing was published yet")
    token: str
    took_ms: float
    explain: dict[str, Any] | None = None


# The index


class SegmentStats(Answer):
    """One segment. ``graph_insertions``: of vectors into this graph and those its rows came from; 0 when it is flat."""

    id: str
    kind: Literal["flat", "graph"]
    rows: int
    live: int
    deleted: int = Field(description="rows with a tombstone, which the next merge drops")
    size_bytes: int
    bytes_per_vector: float
    graph_insertions: int


class MergeStats(Answer):
    """A merge on its way: in stage `merge` it is being built, in stage `swap` it waits for the writer."""

    stage: Literal["merge", "swap"]
    state: str
    segments: int = Field(description="how many segments become one")
    attempts: int
    created_at: float
    error: str | None


class ProbeStats(Answer):
    """Searches for a sample of the rows that are served, compared with an exact scan. Null without an answer."""

    wanted: int = Field(description="rows in the sample")
    asked: int = Field(description="how many of them were asked in the time there was")
    k: int
    ef: int
    self_recall: float | None = Field(description="share of rows that a search by their own vector finds")
    recall: float | None = Field(description="share of the k nearest that a search beside a row finds")
    took_s: float


class IndexStats(Answer):
    """The index of a collection, in the version that is served."""

    collection: Name
    model: str
    dimensions: int
    metric: Metric
    generation: str
    version: int
    published_at: float | None
    rows: int
    live: int
    deleted: int
    size_bytes: int
    bytes_per_vector: float | None = Field(description="bytes of all files for each live row")
    graph_insertions: int
    graph_insertions_per_vector: float | None = Field(description="for each row of a graph")
    merges: list[MergeStats]
    segments: list[SegmentStats]
    probe: ProbeStats | None = Field(description="null when none was asked for")


# Snapshots: the versions of a collection


class SnapshotOrigin(Answer):
    """The version whose segments a rollback or a fork began with."""

    generation: str
    version: int


class Snapshot(Answer):
    """One version of a collection that is kept."""

    version: int
    operation: Literal["publish", "merge", "rollback", "fork", "repair"] = Field(description="what made it")
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
    """``added``, ``changed`` and ``removed`` count all; ``last_id`` as ``after`` gives the next page of documents."""

    before: int
    after: int
    added: int
    changed: int
    removed: int
    documents: list[DocumentChange]
    has_more: bool
    last_id: str | None


# Lists, status, errors


class TenantList(Answer):
    data: list[Tenant]


class CollectionList(Answer):
    data: list[Collection]


class DocumentList(Answer):
    """``last_id`` as ``after`` gives the next page."""

    data: list[Document]
    has_more: bool
    last_id: str | None


class JobList(Answer):
    """Newest first. ``last_id`` as ``after`` gives the next page."""

    data: list[Job]
    has_more: bool
    last_id: str | None


class StageStatus(Answer):
    """Batches of one stage: waiting in the ledger, handed to the queue, held by a worker."""

    ready: int
    sent: int
    running: int
    dead: int
    oldest_s: float | None = Field(description="age of the oldest unfinished batch")


class RoleStatus(Answer):
    role: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    progress_at: float | None
    doing: str | None


class CollectionStatus(Answer):
    tenant: Name
    name: Name
    model: str
    version: int
    chunks: int
    documents: dict[str, int]


class TenantJob(Job):
    tenant: Name


class Status(Answer):
    version: str
    now: float
    queued_documents: int = Field(description="accepted documents not yet in a batch")
    oldest_queued_s: float | None = Field(description="how long the oldest of them has waited")
    stages: dict[str, StageStatus]
    roles: list[RoleStatus] | None = Field(description="processes seen lately; null when there is no broker to ask")
    jobs: list[TenantJob] = Field(description="running jobs, newest first, at most 50")
    collections: list[CollectionStatus] = Field(description="at most 200")


class Health(Answer):
    """``reasons``: why it is not ok. ``degraded``: what is missing but not needed to answer."""

    ok: bool
    reasons: list[str] = Field(default_factory=list)
    degraded: list[str] = Field(default_factory=list)


class ErrorBody(Answer):
    code: str
    message: str
    param: str | None = None


class ErrorAnswer(Answer):
    """Every error has this shape, whatever its status."""

    error: ErrorBody
