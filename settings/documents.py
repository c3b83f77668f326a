"""What becomes of documents, from the bytes to the versions of an index: tables of the settings file. Data only."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from penstock.storage.limits import MAX_COLLECTIONS_PER_TENANT, MAX_DIMENSIONS, MAX_KEPT_VERSIONS, MIN_DIMENSIONS
from penstock.storage.machine import cores

from .groups import Count, Group, Seconds
from .urls import is_http_url


class Embedding(Group):
    """Which model turns text into vectors, and how much of this machine it may use."""

    model: str = Field(
        "minilm",
        min_length=1,
        description="Model of new collections, by a name that `penstock models` lists: minilm, static, "
        "fastembed/<name>, sentence-transformers/<name>, openai/<name>, hash or hash-<dimensions>",
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
    openai_shortest_dimensions: Annotated[int, Field(ge=MIN_DIMENSIONS, le=MAX_DIMENSIONS)] | None = Field(
        None,
        description="Dimensions to which the vectors of an openai/<model> that Penstock does not know may be cut at "
        "least, if it is a Matryoshka model; default: they may not be",
    )
    openai_input_limit_tokens: Count | None = Field(
        None, description="Longest text that an openai/<model> reads which Penstock does not know; default: not checked"
    )
    openai_usd_per_million_tokens: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Price of an openai/<model> that Penstock does not know; default: not known"
    )
    openai_query_prefix: str = Field(
        "", description="Written before each query for an openai/<model> that Penstock does not know"
    )
    openai_passage_prefix: str = Field(
        "", description="Likewise before each passage; vectors made with another one do not fit"
    )
    openai_max_texts: Count | None = Field(
        None, description="Most texts in one request; default: 2048 at OpenAI's own address, 256 elsewhere"
    )
    openai_max_tokens: Count | None = Field(
        None, description="Most tokens in one request; default: 300000 at OpenAI's own address, batch_tokens elsewhere"
    )
    openai_requests_per_minute: Count | None = Field(
        None, description="Most requests a minute for one model, of all processes; default: what the endpoint says"
    )
    openai_tokens_per_minute: Count | None = Field(None, description="Likewise of tokens")
    openai_batches: bool | None = Field(
        None, description="Whether the endpoint has OpenAI's Batch API, for economy; default: only OpenAI's own"
    )
    models_dir: Path | None = Field(
        None, description="Folder of the models that `penstock models fetch` downloads; default: <data_dir>/models"
    )
    cache_ttl_s: Seconds = Field(
        30 * 86_400.0,
        description="How long a cached vector may go unused before it is forgotten",
    )
    cache_bytes: Annotated[int, Field(ge=1 << 20)] = Field(
        384 << 20,
        description="Memory of their server that cached vectors may take; above it those used least lately go",
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
    idempotency_keep_s: Seconds = Field(
        86_400.0, description="How long an idempotency key is remembered: the same submission again is told the same"
    )
    max_backlog_documents: Count = Field(1_000_000, description="Most documents of one tenant that wait to be cut")
    max_backlog_bytes: Count = Field(20 << 30, description="Most bytes of one tenant that wait to be cut")
    max_collections_per_tenant: Count = Field(MAX_COLLECTIONS_PER_TENANT, description="Most collections of one tenant")


class Snapshots(Group):
    """How long past versions of a collection are kept; a collection may have values of its own, and tags keep more."""

    keep_versions: Annotated[int, Field(ge=1, le=MAX_KEPT_VERSIONS)] = Field(
        10, description="Versions that are kept whatever their age, the current one included"
    )
    keep_s: Annotated[float, Field(ge=0)] = Field(
        3_600.0, description="How long a version is kept at least after it was followed by the next"
    )


class Reembedding(Group):
    """What becomes of a generation that another one took over from."""

    keep_s: Annotated[float, Field(ge=0)] = Field(
        7 * 86_400.0, description="How long the generation that served before is kept after the switch, to go back to"
    )
