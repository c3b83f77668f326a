"""Every setting, with its default and its meaning. Data only: nothing here opens, connects or reads anything.

Units are in the names. `Settings(...)` uses only what it is given; `sources.load` adds the file, environment and flags.
"""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from penstock.storage.errors import InvalidName
from penstock.storage.ids import checked_name
from penstock.storage.limits import (
    MAX_COLLECTIONS_PER_TENANT,
    MAX_DIMENSIONS,
    MAX_EF,
    MAX_K,
    MAX_KEPT_VERSIONS,
    MIN_DIMENSIONS,
)
from penstock.storage.paths import checked_object_name

from .urls import is_http_url

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]

QUEUE_SCHEMES = ("amqp://", "amqps://")
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+socket://", "valkey://", "valkeys://")


def cores() -> int:
    """Return how many cores this process may use, which in a container is fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_data_dir() -> Path:
    """Return the per-user directory where an installation lives unless ``data_dir`` says otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "penstock"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "penstock"


class Group(BaseModel):
    """A table of the settings file."""

    # An error shows no input: it may hold a password that somebody wrote where none belongs.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


class Objects(Group):
    """Where segments, manifests and submitted documents lie."""

    directory: Path | None = Field(None, description="Directory of the object store; default: <data_dir>/objects")
    url: str | None = Field(
        None, description="An S3-compatible bucket instead of a directory: s3://<bucket>/<prefix, if any>"
    )
    endpoint: str | None = Field(None, description="URL of the S3 service; default: Amazon's own")
    region: str | None = Field(None, description="Region of the bucket; default: AWS_REGION, else us-east-1")
    access_key_id: SecretStr | None = Field(
        None, description="Key for the bucket; default: AWS_ACCESS_KEY_ID, else the machine's role"
    )
    secret_access_key: SecretStr | None = Field(None, description="Secret of that key; default: AWS_SECRET_ACCESS_KEY")
    cache_directory: Path | None = Field(
        None, description="Directory of local copies of what is in the bucket; default: <data_dir>/objects-cache"
    )
    cache_bytes: Annotated[int, Field(ge=64 << 20)] = Field(
        20 << 30, description="Size of those copies before the least used ones go; mapped ones stay"
    )

    @property
    def bucket_and_prefix(self) -> tuple[str, str | None]:
        """What ``url`` names; only when there is one."""
        parts = urlsplit(self.url or "")
        return parts.netloc, parts.path.strip("/") or None

    @field_validator("url")
    @classmethod
    def _names_a_bucket(cls, value: str | None) -> str | None:
        """Refuse a password: the URL is logged and shown, and no message here may repeat it."""
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme != "s3" or not BUCKET.fullmatch(parts.netloc) or parts.query or parts.fragment:
            raise ValueError(
                "must be s3://bucket or s3://bucket/prefix; the service is objects.endpoint, keys are "
                "objects.access_key_id and objects.secret_access_key"
            )
        if prefix := parts.path.strip("/"):
            try:
                checked_object_name(prefix)
            except InvalidName as error:
                raise ValueError(f"has a prefix that is not allowed: {error}") from error
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_a_service(cls, value: str | None) -> str | None:
        if value is not None and (not is_http_url(value) or "@" in urlsplit(value).netloc):
            raise ValueError(
                "must be an http:// or https:// URL without a user name, for example https://s3.example.com"
            )
        return value

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if self.url and self.directory:
            raise ValueError("objects.url and objects.directory are two places: leave one of them out")
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("objects.access_key_id and objects.secret_access_key belong together: give both or none")
        if not self.url and (self.endpoint or self.access_key_id):
            raise ValueError("objects.url is missing: it names the bucket at objects.endpoint")
        return self


class Tenants(Group):
    """Who may use this installation."""

    create: Annotated[tuple[str, ...], NoDecode] = Field(
        ("default",), description="Tenants made at start when they do not exist yet; comma-separated in a variable"
    )

    @field_validator("create", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("create")
    @classmethod
    def _allowed(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(checked_name("tenant", name) for name in names)
        except InvalidName as error:
            raise ValueError(str(error)) from error


class Embedding(Group):
    """Which model turns text into vectors, and how much of this machine it may use."""

    model: str = Field(
        "minilm",
        min_length=1,
        description="Model of new collections: minilm, static, hash, hash-<dimensions> or openai/<model name>",
    )
    threads: Count = Field(
        default_factory=cores,
        description="Threads of a local model in one process, and of a merge; default: one per core",
    )
    batch_tokens: Count = Field(16_384, description="Tokens given to the model at once, padding included")
    timeout_s: Seconds = Field(60.0, description="Longest wait for one answer of a remote provider")
    openai_base_url: str | None = Field(
        None,
        description="Base URL of an OpenAI-compatible endpoint; default: OpenAI's own",
    )
    openai_api_key: SecretStr | None = Field(None, description="Key for that endpoint")
    openai_dimensions: Annotated[int, Field(ge=MIN_DIMENSIONS, le=MAX_DIMENSIONS)] | None = Field(
        None, description="Dimensions of openai/<model>; needed for models Penstock does not know"
    )
    cache_ttl_s: Seconds = Field(
        30 * 86_400.0,
        description="How long a cached vector may go unused before it is forgotten",
    )
    share_cache: bool = Field(
        False, description="Whether tenants share cached vectors; if so, timing tells one that another has a text"
    )

    @field_validator("openai_base_url")
    @classmethod
    def _names_no_user(cls, value: str | None) -> str | None:
        """Refuse a password: the URL is logged and shown, and no message here may repeat it."""
        if value is None:
            return None
        if not is_http_url(value):
            raise ValueError("must be an http:// or https:// URL, for example http://127.0.0.1:8080/v1")
        if "@" in urlsplit(value).netloc:
            raise ValueError(
                "has a user name or password in it, which would be logged: leave it out, and put the endpoint's key "
                "into embedding.openai_api_key (PENSTOCK_EMBEDDING__OPENAI_API_KEY)"
            )
        return value


class Chunking(Group):
    """How documents of new collections are cut."""

    strategy: Literal["auto", "recursive", "tokens"] = Field("auto", description="auto, recursive or tokens")
    size_tokens: Count | None = Field(
        None,
        description="Longest chunk in tokens; default: what suits the embedding model",
    )
    overlap_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None,
        description="Tokens repeated from the chunk before",
    )


class Limits(Group):
    """What is refused, so that one document cannot take the service down."""

    max_document_bytes: Count = Field(50 << 20, description="Largest document")
    max_pages: Count = Field(2_000, description="Most pages of one PDF")
    max_characters: Count = Field(20_000_000, description="Most characters of text in one document")
    parse_timeout_s: Seconds = Field(60.0, description="Longest time to parse one document")
    max_submission_bytes: Count = Field(128 << 20, description="Largest request that submits documents")
    max_documents_per_submission: Count = Field(1_000, description="Most documents in one request")
    max_collections_per_tenant: Count = Field(MAX_COLLECTIONS_PER_TENANT, description="Most collections of one tenant")


class Api(Group):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for every interface")
    port: Port = Field(7700, description="Port to listen on; 0 takes a free one")
    search_threads: Count = Field(default_factory=cores, description="Threads that run searches; default: one per core")


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


class Snapshots(Group):
    """How long past versions of a collection are kept; a collection may have values of its own, and tags keep more."""

    keep_versions: Annotated[int, Field(ge=1, le=MAX_KEPT_VERSIONS)] = Field(
        10, description="Versions that are kept whatever their age, the current one included"
    )
    keep_s: Annotated[float, Field(ge=0)] = Field(
        3_600.0, description="How long a version is kept at least after it was followed by the next"
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
    grace_s: Seconds = Field(30.0, description="How long a worker may finish what it holds when it is told to stop")
    queue_depth: Count = Field(32, description="Batches kept waiting in each queue; the rest wait in the ledger")
    max_chunks_per_publish: Count = Field(20_000, description="Most chunks published in one version")
    chunk_memory_bytes: Count = Field(2 << 30, description="Memory of one parsing process before it is replaced")


class Embedded(Group):
    """The private Valkey that `penstock up` starts when ``broker_url`` is not set."""

    max_memory_bytes: Annotated[int, Field(ge=32 << 20)] = Field(
        512 << 20, description="Its memory; above it the vectors that were used least are forgotten, never the queue"
    )


class Log(Group):
    """What the processes write to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="debug, info, warning or error")
    format: Literal["text", "json"] = Field("text", description="text for people, json for one object per line")


class Settings(BaseSettings):
    """All settings of one installation, frozen. ``None`` means the default that the description names."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        hide_input_in_errors=True,
        env_prefix="PENSTOCK_",
        env_nested_delimiter="__",
    )

    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Directory of everything this installation keeps",
    )
    broker_url: SecretStr | None = Field(
        None, description="Queue: redis://, rediss://, unix:// or amqp://; default: a private Valkey of `penstock up`"
    )
    cache_url: SecretStr | None = Field(
        None, description="Redis or Valkey for cached vectors, notifications and presence; default: the broker's"
    )
    catalog_url: SecretStr | None = Field(
        None, description="Catalog and ledger: postgresql+psycopg:// or sqlite:///; default: <data_dir>/catalog.sqlite3"
    )
    admin_key: SecretStr | None = Field(
        None,
        description="Key of this installation; default: made at the first `penstock up`",
    )
    objects: Objects = Objects()
    tenants: Tenants = Tenants()
    embedding: Embedding = Embedding()
    chunking: Chunking = Chunking()
    limits: Limits = Limits()
    api: Api = Api()
    flower: Flower = Flower()
    search: Search = Search()
    snapshots: Snapshots = Snapshots()
    workers: Workers = Workers()
    embedded: Embedded = Embedded()
    log: Log = Log()

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)  # dotted key → where its value came from

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take nothing from the environment here: `sources.load` does, and remembers where each value came from."""
        return (init_settings,)

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("admin_key")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 16:
            raise ValueError("needs at least 16 characters: it opens every tenant")
        return value

    @field_validator("broker_url")
    @classmethod
    def _known_queue(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith((*REDIS_SCHEMES, *QUEUE_SCHEMES)):
            raise ValueError(
                "is no address of a queue: write redis://host:6379/0, rediss://, unix:///path or amqp://host//"
            )
        return value

    @model_validator(mode="after")
    def _cache_is_redis(self) -> Self:
        if self.broker_url and not self.cache_url and not self.broker_url.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError("cache_url is needed when broker_url is not a Redis or Valkey")
        if self.cache_url and not self.cache_url.get_secret_value().startswith(REDIS_SCHEMES):
            raise ValueError("cache_url must be a Redis or Valkey: redis://, rediss:// or unix://")
        return self
