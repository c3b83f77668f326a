"""What travels over HTTP: the requests and answers, shared by the client and the server.

Requests refuse unknown fields, so that a misspelt one is never ignored, and values of another type. Answers accept
unknown fields, so that an older client reads a newer server. Times are seconds since 1970. Nothing here talks to
anybody.
"""

from .cache import CacheStatus, CacheUse
from .changes import MAX_REMOVED_AT_ONCE, ChunkDeletion, ChunksDeleted, Deleted, Deletion, DocumentUpdate, Updated
from .collections import (
    Chunking,
    Collection,
    CollectionChange,
    CollectionList,
    Fork,
    Metric,
    NewCollection,
    Quantization,
)
from .dead_letters import DeadSelection, Dropped, RefusalCode, RefusedDocument, Retried
from .documents import Document, DocumentList, DocumentName, DocumentState, FormerDeath
from .failures import ErrorAnswer, ErrorBody
from .indexes import IndexStats, MergeStats, ProbeStats, SegmentStats
from .installation import CollectionStatus, Health, RoleStatus, StageStatus, Status, TenantJob
from .jobs import HeldUp, Job, JobList, JobState
from .limits import LimitStatus
from .messages import Answer, Name, Request
from .searches import Hit, HitDocument, SearchQuery, SearchResult, packed_vector
from .snapshots import (
    DocumentChange,
    Rollback,
    Snapshot,
    SnapshotDetails,
    SnapshotDiff,
    SnapshotList,
    SnapshotOrigin,
    SnapshotSegment,
)
from .submissions import (
    LONGEST_SOURCE,
    DocumentFields,
    Known,
    KnownQuery,
    NewDocument,
    Priority,
    SourceHash,
    Submission,
    Submitted,
    UploadForm,
    content_hash,
)
from .tenants import NewTenant, Pause, Tenant, TenantChange, TenantList
from .webhooks import (
    Delivery,
    DeliveryList,
    DeliveryState,
    WebhookDefault,
    WebhookDefaults,
    WebhookReceiver,
    WebhookSecret,
    WebhookTaken,
)

__all__ = [
    "LONGEST_SOURCE",
    "MAX_REMOVED_AT_ONCE",
    "Answer",
    "CacheStatus",
    "CacheUse",
    "ChunkDeletion",
    "Chunking",
    "ChunksDeleted",
    "Collection",
    "CollectionChange",
    "CollectionList",
    "CollectionStatus",
    "DeadSelection",
    "Deleted",
    "Deletion",
    "Delivery",
    "DeliveryList",
    "DeliveryState",
    "Document",
    "DocumentChange",
    "DocumentFields",
    "DocumentList",
    "DocumentName",
    "DocumentState",
    "DocumentUpdate",
    "Dropped",
    "ErrorAnswer",
    "ErrorBody",
    "Fork",
    "FormerDeath",
    "Health",
    "HeldUp",
    "Hit",
    "HitDocument",
    "IndexStats",
    "Job",
    "JobList",
    "JobState",
    "Known",
    "KnownQuery",
    "LimitStatus",
    "MergeStats",
    "Metric",
    "Name",
    "NewCollection",
    "NewDocument",
    "NewTenant",
    "Pause",
    "Priority",
    "ProbeStats",
    "Quantization",
    "RefusalCode",
    "RefusedDocument",
    "Request",
    "Retried",
    "RoleStatus",
    "Rollback",
    "SearchQuery",
    "SearchResult",
    "SegmentStats",
    "Snapshot",
    "SnapshotDetails",
    "SnapshotDiff",
    "SnapshotList",
    "SnapshotOrigin",
    "SnapshotSegment",
    "SourceHash",
    "StageStatus",
    "Status",
    "Submission",
    "Submitted",
    "Tenant",
    "TenantChange",
    "TenantJob",
    "TenantList",
    "Updated",
    "UploadForm",
    "WebhookDefault",
    "WebhookDefaults",
    "WebhookReceiver",
    "WebhookSecret",
    "WebhookTaken",
    "content_hash",
    "packed_vector",
]
