"""Names for identifiers, so that a tenant can never be passed where a collection is meant.

Identifiers sort by the time they were made, which keeps SQL indexes dense at their right end.
"""

import re
import secrets
import time
from typing import NewType

from .errors import InvalidName

TenantId = NewType("TenantId", str)
CollectionId = NewType("CollectionId", str)
GenerationId = NewType("GenerationId", str)
DocumentId = NewType("DocumentId", str)
VersionId = NewType("VersionId", str)
JobId = NewType("JobId", str)
BatchId = NewType("BatchId", str)
ScheduleId = NewType("ScheduleId", str)
RunId = NewType("RunId", str)
SegmentId = NewType("SegmentId", str)
ChunkId = NewType("ChunkId", int)
ManifestVersion = NewType("ManifestVersion", int)

NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?")


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 hex digits: 48 bits of milliseconds, then 56 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(7)}"


def checked_name(kind: str, name: str) -> str:
    """Return ``name`` if it may name a tenant or a collection; such names become parts of object names.

    Raises:
        InvalidName: it is empty, longer than 64 characters, or has a character outside ``a-z 0-9 _ -``.
    """
    if not NAME.fullmatch(name):
        raise InvalidName(
            f"{kind} name {name!r} is not allowed: use 1 to 64 of a-z, 0-9, '-' and '_', "
            "starting and ending with a letter or digit"
        )
    return name
