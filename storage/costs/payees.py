"""For whom a provider is called, and at which price."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..ids import CollectionId, JobId, TenantId

OF_REEMBEDDINGS = "reemb"  # what their ids begin with


def is_reembedding(job_id: str) -> bool:
    """Say whether what is told in the place of a job is a re-embedding."""
    return job_id.startswith(f"{OF_REEMBEDDINGS}_")


@dataclass(frozen=True)
class Payee:
    """``price``: of a million tokens, in US dollars; 0 for what runs here, None: nobody knows it.

    ``jobs``: by id, the weights by which they share the cost; none: a search, which is nobody's job. A re-embedding is
    told as a job is.
    """

    tenant_id: TenantId
    collection_id: CollectionId
    model: str
    price: float | None
    jobs: Mapping[JobId, int] = field(default_factory=dict)

    @property
    def is_free(self) -> bool:
        return self.price == 0
