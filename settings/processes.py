"""What runs, how much of it, and what it says: tables of the settings file. Data only."""

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from penstock.storage.limits import MAX_EF, MAX_K
from penstock.storage.machine import cores

from .groups import Count, Folders, Group, Port, Seconds


class Api(Group):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface")
    port: Port = Field(7700, description="Port to listen on; 0 takes a free one")
    search_threads: Count = Field(default_factory=cores, description="Threads that run searches; default: one per core")
    max_streams: Count = Field(500, description="Streams of events that one process holds open at once")
    max_streams_per_tenant: Count = Field(100, description="Of those, streams of jobs of one tenant")
    max_waits: Count = Field(200, description="Requests that wait on purpose in one process at once")
    max_waits_per_tenant: Count = Field(100, description="Of those, requests for one tenant")


class Flower(Group):
    """The queue's own web page."""

    host: str = Field("127.0.0.1", description="Address to listen on")
    port: Port = Field(5555, description="Port to listen on")
    user: str = Field("admin", min_length=1, description="Name to log in with")
    password: SecretStr | None = Field(
        None,
        description="Password to log in with; default: made once, in <data_dir>/flower.password",
    )


class Search(Group):
    """How much a search may cost."""

    ef: Annotated[int, Field(ge=8, le=MAX_EF)] = Field(
        64,
        description="Candidates kept while walking a graph: higher finds more, slower",
    )
    max_k: Annotated[int, Field(ge=1, le=MAX_K)] = Field(MAX_K, description="Most hits of one search")
    poll_s: Seconds = Field(1.0, description="How often a reader looks for a new version when no notification comes")
    snapshot_cache_bytes: Count = Field(
        4 << 30,
        description="Address space for opened snapshots before the least used is closed",
    )


class Workers(Group):
    """How many of what runs, and when work counts as lost."""

    chunk_processes: Count = Field(
        default_factory=lambda: max(1, cores() // 2),
        description="Processes that parse and chunk; default: half the cores",
    )
    embed_threads: Count = Field(
        2,
        description="Batches in one embed process at once: one is read and written while the model works on another",
    )
    search_threads: Count = Field(
        default_factory=cores,
        description="Searches from the queue at once; default: one per core",
    )
    merge_processes: Count = Field(
        2, description="Merges at once: what is published beside a large one is merged meanwhile"
    )
    shards: Count = Field(1, description="Writers that publish side by side; fixed for a collection when it is created")
    max_attempts: Count = Field(5, description="Attempts on a batch before its documents are tried alone, then failed")
    lease_s: Seconds = Field(
        30.0, description="How long a worker may hold a batch without saying so again; ten times for merges"
    )
    resend_after_s: Seconds = Field(30.0, description="When a message that nobody acted on is sent again")
    retry_delay_s: Seconds = Field(
        1.0,
        description="Delay before the second attempt; doubled for each further one, up to a minute",
    )
    keep_dead_bytes_s: Seconds = Field(
        30 * 86_400.0,
        description="How long the bytes of a failed document are kept for a retry; why it failed is told for longer",
    )
    grace_s: Seconds = Field(30.0, description="How long a worker may finish what it holds when it is told to stop")
    queue_depth: Count = Field(32, description="Batches kept waiting in each queue; the rest wait in the ledger")
    tenant_percent: Annotated[int, Field(ge=1, le=100)] = Field(
        67, description="Most of each queue that one tenant may fill, so that the next finds room at once"
    )
    max_chunks_per_publish: Count = Field(20_000, description="Most chunks published in one version")
    max_staged_chunks: Count | None = Field(
        None,
        description="Embedded chunks that may wait for the writer of a shard before no more documents are cut for it; "
        "default: five times max_chunks_per_publish",
    )
    chunk_memory_bytes: Count = Field(2 << 30, description="Memory of one parsing process before it is replaced")


class Schedules(Group):
    """What schedules may do on the machines that run maintenance."""

    sync_roots: Folders = Field(
        (),
        description="Folders below which schedules may name those that they keep collections equal to; default: none",
    )
    backup_roots: Folders = Field((), description="Folders below which schedules may write backups; default: none")
    runs: Count = Field(
        1, description="Runs of schedules at once, in the whole installation; the other merge_processes go on merging"
    )


class Webhooks(Group):
    """How receivers are told that jobs ended."""

    private: bool = Field(
        False,
        description="Whether webhooks may go to http:// and to private addresses: tenants can then reach this network",
    )
    timeout_s: Seconds = Field(10.0, description="Longest time of one attempt, all of it")
    max_attempts: Count = Field(14, description="Attempts before a webhook is given up, over about half a day")
    retry_delay_s: Seconds = Field(
        15.0, description="Longest delay before the second attempt; doubled for each further one, up to six hours"
    )


class Embedded(Group):
    """The private Valkey that `penstock up` starts when ``broker_url`` is not set."""

    max_memory_bytes: Annotated[int, Field(ge=32 << 20)] = Field(
        512 << 20, description="Its memory; above it the vectors that were used least are forgotten, never the queue"
    )


class Log(Group):
    """What the processes write to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    format: Literal["text", "json"] = Field("text", description="text for people, json for one object per line")
