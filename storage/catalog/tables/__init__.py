"""Every SQL table: the catalog (tenants, collections, generations), the ledger (jobs, documents, versions, batches)
and costs.

Times are seconds since 1970 as float, passed in by the caller. Every row below a tenant carries its tenant.
States are checked by the database, so that no program can write a word that another does not know; which may follow
which is in ``transitions.py``.
"""

from .batches import (
    BATCH_STAGES,
    BATCH_STATES,
    GOES_ON_BY_ITSELF,
    IS_STAGED,
    POSTPONED,
    batches,
)
from .conventions import (
    metadata,
)
from .costs import (
    costs,
    purses,
    reservations,
)
from .documents import (
    ECONOMY,
    GONE,
    HAS_CACHE_HITS,
    HAS_CHUNKS_REUSED,
    HAS_DEAD_BYTES,
    IS_DEAD,
    IS_EMBEDDING,
    IS_INDEXED,
    IS_QUEUED,
    JOB_STATES,
    NEVER_SERVED_AGAIN,
    NORMAL,
    OF_DOCUMENT,
    PRIORITIES,
    VERSION_ACTIONS,
    VERSION_FINAL_STATES,
    VERSION_STATES,
    documents,
    idempotency_keys,
    jobs,
    versions,
)
from .generations import (
    GENERATION_STATES,
    MANIFEST_OPERATIONS,
    collections,
    generations,
    manifests,
    reader_leases,
    shards,
    tags,
)
from .orders import (
    ORDER_STATES,
    orders,
)
from .questions import judgements, recorded_queries
from .reembeddings import (
    REEMBEDDING_ENDS,
    REEMBEDDING_STATES,
    reembeddings,
)
from .schedules import (
    IS_OPEN_RUN,
    RUN_STATES,
    SCHEDULE_ACTIONS,
    schedule_runs,
    schedules,
)
from .tenancy import (
    accounts,
    backlogs,
    installation,
    tenants,
)
from .webhooks import (
    DELIVERY_STATES,
    IS_OPEN_DELIVERY,
    IS_SENDING,
    deliveries,
    webhook_secrets,
)

__all__ = [
    "BATCH_STAGES",
    "BATCH_STATES",
    "DELIVERY_STATES",
    "ECONOMY",
    "GENERATION_STATES",
    "GOES_ON_BY_ITSELF",
    "GONE",
    "HAS_CACHE_HITS",
    "HAS_CHUNKS_REUSED",
    "HAS_DEAD_BYTES",
    "IS_DEAD",
    "IS_EMBEDDING",
    "IS_INDEXED",
    "IS_OPEN_DELIVERY",
    "IS_OPEN_RUN",
    "IS_QUEUED",
    "IS_SENDING",
    "IS_STAGED",
    "JOB_STATES",
    "MANIFEST_OPERATIONS",
    "NEVER_SERVED_AGAIN",
    "NORMAL",
    "OF_DOCUMENT",
    "ORDER_STATES",
    "POSTPONED",
    "PRIORITIES",
    "REEMBEDDING_ENDS",
    "REEMBEDDING_STATES",
    "RUN_STATES",
    "SCHEDULE_ACTIONS",
    "VERSION_ACTIONS",
    "VERSION_FINAL_STATES",
    "VERSION_STATES",
    "accounts",
    "backlogs",
    "batches",
    "collections",
    "costs",
    "deliveries",
    "documents",
    "generations",
    "idempotency_keys",
    "installation",
    "jobs",
    "judgements",
    "manifests",
    "metadata",
    "orders",
    "purses",
    "reader_leases",
    "recorded_queries",
    "reembeddings",
    "reservations",
    "schedule_runs",
    "schedules",
    "shards",
    "tags",
    "tenants",
    "versions",
    "webhook_secrets",
]
