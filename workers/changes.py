"""What the writer does to documents that are served already: the ledger's words for it in those of the publisher."""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.storage.ledger import IndexGroup, VersionRow
from penstock.storage.publishing.publisher import Revision, Trim


@dataclass(frozen=True)
class Changes:
    """``put``: the versions that bring chunks; the others say what becomes of chunks that are there."""

    put: frozenset[str]
    removed: tuple[str, ...]
    revisions: tuple[Revision, ...]
    trims: tuple[Trim, ...]

    @property
    def told(self) -> str:
        """Return it in words, for a log line."""
        counts = {"removed": self.removed, "described anew": self.revisions, "trimmed": self.trims}
        parts = [f"{len(some)} {what}" for what, some in counts.items() if some]
        return f", {', '.join(parts)}" if parts else ""


def changes_of(groups: Iterable[IndexGroup]) -> Changes:
    """Return what these groups ask for. Of a document they hold one version at most, trims apart."""
    rows = [version for group in groups for version in group.versions]
    return Changes(
        put=frozenset(row.id for row in rows if row.action == "put"),
        removed=tuple(row.document_id for row in rows if row.action == "delete"),
        revisions=tuple(_revision(row) for row in rows if row.action == "update"),
        trims=tuple(_trim(row) for row in rows if row.action == "trim"),
    )


def _revision(row: VersionRow) -> Revision:
    return Revision(
        document_id=row.document_id,
        version_id=row.id,
        number=row.number,
        title=row.title,
        metadata=row.metadata,
        event_time=row.event_time,
        expires_at=row.expires_at,
        metadata_hash=row.metadata_hash,
    )


def _trim(row: VersionRow) -> Trim:
    details = row.details or {}
    return Trim(row.id, row.document_id, text_version_id=details["text_version"], ordinals=details["ordinals"])
