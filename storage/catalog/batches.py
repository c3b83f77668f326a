"""Rows of batches as they begin: ready, and a group of their own. It writes nothing."""

from typing import Any

from ..ids import BatchId, GenerationId, TenantId, new_id

PAUSED_FROM = 1e11  # what is to be tried so late, somebody paused: it stays so until somebody resumes it


def ready_batch(
    stage: str,
    *,
    tenant: TenantId,
    generation_id: GenerationId,
    shard: int,
    now: float,
    batch_id: BatchId | None = None,
    **columns: Any,
) -> dict[str, Any]:
    """Return the row of a new batch, for one that is not named under a new id; ``columns``: what else it has."""
    made = batch_id or new_id("batch")
    return {
        "id": made,
        "group_id": made,
        "tenant_id": tenant,
        "generation_id": generation_id,
        "shard": shard,
        "stage": stage,
        "state": "ready",
        "created_at": now,
        **columns,
    }
