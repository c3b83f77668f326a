"""Names of tasks and queues, and which queue carries which task. Only names: nothing here connects or sends."""

from collections.abc import Iterable
from typing import Any

from kombu.entity import Exchange, Queue

CHUNK = "penstock.chunk"
EMBED = "penstock.embed"
INDEX = "penstock.index"
MERGE = "penstock.merge"
CHECK = "penstock.check"
COLLECT = "penstock.collect"
RUN = "penstock.run"
ORDER = "penstock.order"
SEARCH = "penstock.search"
SUBMIT = "penstock.submit"
DELETE = "penstock.delete"
JOB = "penstock.job"

MAINTENANCE_QUEUE = "maintenance"
COLLECT_QUEUE = "collect"  # of its own: only so can beat tell whether a tick waits, whatever merges do
RUNS_QUEUE = "runs"  # likewise, of schedules
ORDERS_QUEUE = "orders"  # likewise
SEARCH_QUEUE = "search"
EXPRESS_QUEUE = "express"  # of short batches, of two stages
TICK_QUEUES = (COLLECT_QUEUE, ORDERS_QUEUE, RUNS_QUEUE)

# kombu publishes types, but not for these.
DIRECT = Exchange("", type="direct")  # type: ignore[no-untyped-call]  # the default exchange: no binding that a FLUSHALL could delete

_QUORUM = {"x-queue-type": "quorum"}
# A merge is acknowledged when it is done, which may take hours; RabbitMQ takes back after half an hour what is not.
_PATIENT = {"x-consumer-timeout": 24 * 3600 * 1000}


def index_queue(shard: int) -> str:
    """Return the queue of one shard's writer."""
    return f"index.{shard}"


def queue(name: str, *, arguments: dict[str, Any] | None = None) -> Queue:
    """Return a durable queue reached by its own name. ``arguments``: what only RabbitMQ knows."""
    return Queue(name, exchange=DIRECT, routing_key=name, queue_arguments=arguments)  # type: ignore[no-untyped-call]


def all_queues(shards: int, *, quorum: bool = False) -> list[Queue]:
    """Return every queue of an installation. ``quorum``: of the kind that RabbitMQ keeps on several nodes.

    The queue of questions stays of the server's own kind: applications declare it too, and know nothing of this.
    """
    of_maintenance = [MAINTENANCE_QUEUE, *TICK_QUEUES]
    names = ["chunk", "embed", EXPRESS_QUEUE, *map(index_queue, range(shards)), *of_maintenance]
    kept = [queue(name, arguments=_QUORUM | _PATIENT if quorum else None) for name in names]
    return [*kept, queue(SEARCH_QUEUE)]


def role_queues(role: str, *, shards: Iterable[int]) -> list[str]:
    """Return the queues a role consumes; ``shards`` are those this index process writes."""
    if role == "index":
        return [index_queue(shard) for shard in shards]
    return [MAINTENANCE_QUEUE, *TICK_QUEUES] if role == "maintenance" else [role]


TASK_QUEUES = {  # penstock.index is missing: its queue depends on the shard
    CHUNK: "chunk",
    EMBED: "embed",
    MERGE: MAINTENANCE_QUEUE,
    CHECK: MAINTENANCE_QUEUE,
    COLLECT: COLLECT_QUEUE,
    RUN: RUNS_QUEUE,
    ORDER: ORDERS_QUEUE,
    SEARCH: SEARCH_QUEUE,
    SUBMIT: SEARCH_QUEUE,
    DELETE: SEARCH_QUEUE,
    JOB: SEARCH_QUEUE,
}
