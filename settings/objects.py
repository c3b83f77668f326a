"""Where the objects lie: the table ``[objects]``. Data only."""

import re
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from penstock.storage.errors import InvalidName
from penstock.storage.paths import checked_object_name

from .groups import Group
from .urls import is_http_url

BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


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
