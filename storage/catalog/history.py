"""What a job still tells of document versions whose rows are gone: kept as JSON in the job's row."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import GenerationId, ManifestVersion
from .tables import jobs

_KEEP = sa.update(jobs).where(jobs.c.id == sa.bindparam("job")).values(pruned=sa.bindparam("told"))
Token = tuple[GenerationId, ManifestVersion]


@dataclass(frozen=True)
class History:
    """``documents`` counts versions by state; ``token`` is the newest that served one of them first."""

    documents: Mapping[str, int] = field(default_factory=dict)
    token: Token | None = None

    def __add__(self, other: "History") -> "History":
        documents = Counter(self.documents) + Counter(other.documents)
        return History(documents=dict(documents), token=newest(self.token, other.token))

    def to_details(self) -> dict[str, Any]:
        return {"documents": dict(self.documents), "token": self.token}

    @classmethod
    def from_details(cls, details: Mapping[str, Any] | None) -> Self:
        """Read what ``to_details`` gave; None: nothing was pruned yet."""
        if details is None:
            return cls()
        token = details["token"]
        return cls(documents=details["documents"], token=(token[0], token[1]) if token else None)


def keep_histories(connection: Connection, histories: Mapping[str, History]) -> None:
    """Write them into the rows of their jobs, which the caller holds, by job."""
    if histories:
        connection.execute(_KEEP, [{"job": job, "told": one.to_details()} for job, one in sorted(histories.items())])


def newest(*tokens: Token | None) -> Token | None:
    """Return the token of the highest version."""
    return max((token for token in tokens if token), key=lambda token: (token[1], token[0]), default=None)
