"""Every setting, with its default and its meaning. Data only: nothing here opens, connects or reads anything.

Units are in the names. `Settings(...)` uses only what it is given; `sources.load` adds the file, environment and flags.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from penstock.storage.errors import InvalidName
from penstock.storage.ids import checked_name

from .documents import Chunking, Embedding, Limits, Reembedding, Snapshots
from .groups import Group
from .objects import Objects
from .processes import Api, Embedded, Flower, Log, Schedules, Search, Webhooks, Workers
from .shadow import Shadow

__all__ = [
    "Api",
    "Chunking",
    "Embedded",
    "Embedding",
    "Flower",
    "Limits",
    "Log",
    "Objects",
    "Reembedding",
    "Schedules",
    "Search",
    "Settings",
    "Shadow",
    "Snapshots",
    "Tenants",
    "Webhooks",
    "Workers",
    "default_data_dir",
]

QUEUE_SCHEMES = ("amqp://", "amqps://")
REDIS_SCHEMES = ("redis://", "rediss://", "unix://", "redis+socket://", "valkey://", "valkeys://")


def default_data_dir() -> Path:
    """Return the per-user directory where an installation lives unless ``data_dir`` says otherwise."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "penstock"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "penstock"


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
    shadow: Shadow = Shadow()
    snapshots: Snapshots = Snapshots()
    reembedding: Reembedding = Reembedding()
    workers: Workers = Workers()
    webhooks: Webhooks = Webhooks()
    schedules: Schedules = Schedules()
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
