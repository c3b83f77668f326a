"""The installation as a whole: its work, its processes, its health."""

from pydantic import Field

from .cache import CacheStatus
from .indexes import MergeSetback
from .jobs import Job
from .limits import LimitStatus
from .messages import Answer, Name
from .reembeddings import Reembedding


class StageStatus(Answer):
    """Batches of one stage: waiting in the ledger, handed to the queue, held by a worker."""

    ready: int
    sent: int
    running: int
    dead: int = Field(
        description="given up in the last week: their documents were begun again one by one, or are failed; merges "
        "are planned again; a rollback changed nothing"
    )
    oldest_s: float | None = Field(description="age of the oldest unfinished batch")


class RoleStatus(Answer):
    role: str
    host: str
    pid: int
    started_at: float
    seen_at: float
    progress_at: float | None
    doing: str | None
    still_s: float | None = Field(
        default=None, description="how long its work has not moved, when that is too long; null when all is well"
    )


class CollectionStatus(Answer):
    tenant: Name
    name: Name
    model: str
    version: int
    chunks: int
    documents: dict[str, int]


class CollectionSetback(MergeSetback):
    tenant: Name
    collection: Name


class TenantJob(Job):
    tenant: Name


class TenantReembedding(Reembedding):
    tenant: Name
    collection: Name


class Status(Answer):
    version: str
    now: float
    paused_at: float | None = Field(
        default=None, description="since then nothing is begun for anybody; null: it is not paused"
    )
    paused_tenants: list[Name] = Field(default_factory=list, description="tenants that are paused on their own")
    unwritten_shards: list[int] = Field(
        default_factory=list, description="shards that no index worker writes, though work has waited for a minute"
    )
    absent_roles: list[str] = Field(
        default_factory=list, description="roles of which no process is there, though work has waited for a minute"
    )
    setbacks: list[CollectionSetback] = Field(
        default_factory=list, description="collections whose merges were given up lately, at most 20"
    )
    queued_documents: int = Field(description="accepted documents not yet in a batch")
    oldest_queued_s: float | None = Field(description="how long the oldest of them has waited")
    stages: dict[str, StageStatus]
    roles: list[RoleStatus] | None = Field(description="processes seen lately; null when there is no broker to ask")
    jobs: list[TenantJob] = Field(description="running jobs, newest first, at most 50")
    reembeddings: list[TenantReembedding] = Field(
        default_factory=list,
        description="re-embeddings that go on, wait or are paused, at most 50; not those that rest after their switch",
    )
    collections: list[CollectionStatus] = Field(description="at most 200")
    cache: CacheStatus | None = Field(
        default=None, description="vectors kept for all tenants; null when the cache's server does not answer"
    )
    limits: list[LimitStatus] | None = Field(
        default=None, description="what remote models are asked at most; null when the cache's server does not answer"
    )


class Health(Answer):
    """``reasons``: why it is not ok. ``degraded``: what is missing but not needed to answer."""

    ok: bool
    reasons: list[str] = Field(default_factory=list)
    degraded: list[str] = Field(default_factory=list)
