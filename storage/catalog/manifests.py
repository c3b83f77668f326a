"""The versions of a generation that are kept: what each was made by, and which objects they are.

A version is kept as long as it has a row here. It reads no object, and decides nothing about what is current.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import NotKept
from ..ids import GenerationId, ManifestVersion
from ..segments.manifests import Manifest
from .engine import Catalog
from .tables import manifests, tags

Operation = Literal["publish", "merge", "rollback", "fork", "repair", "switch"]


@dataclass(frozen=True)
class Origin:
    """How a version came to be; of a rollback or a fork also the version whose segments it began with."""

    operation: Operation
    generation_id: GenerationId | None = None
    version: ManifestVersion | None = None


@dataclass(frozen=True)
class ManifestInfo:
    """One version that is kept. ``followed_at`` is when the next one came, None while it is the current one."""

    generation_id: GenerationId
    version: ManifestVersion
    name: str  # of the object
    origin: Origin
    writer_epoch: int
    segment_count: int
    live_chunks: int
    size_bytes: int
    created_at: float
    followed_at: float | None
    tags: tuple[str, ...]  # by name


def record_manifest(connection: Connection, manifest: Manifest, *, name: str, origin: Origin) -> None:
    """Add a version to the history, in the transaction that makes it the current one."""
    mine = manifests.c.generation_id == manifest.generation_id
    former = sa.update(manifests).where(mine, manifests.c.version < manifest.version, manifests.c.followed_at.is_(None))
    connection.execute(former.values(followed_at=manifest.created_at))
    row = {
        "generation_id": manifest.generation_id,
        "version": manifest.version,
        "tenant_id": manifest.tenant_id,
        "name": name,
        "operation": origin.operation,
        "origin_generation_id": origin.generation_id,
        "origin_version": origin.version,
        "writer_epoch": manifest.writer_epoch,
        "segment_count": len(manifest.segments),
        "live_chunks": manifest.live_chunks,
        "size_bytes": sum(file.size_bytes for entry in manifest.segments for file in entry.all_files),
        "created_at": manifest.created_at,
    }
    connection.execute(sa.insert(manifests).values(row))


def hold_manifest(connection: Connection, generation_id: GenerationId, version: int) -> ManifestInfo:
    """Return a version, which then stays until the transaction ends. Raises NotKept."""
    wanted = sa.select(manifests).where(manifests.c.generation_id == generation_id, manifests.c.version == version)
    row = connection.execute(wanted.with_for_update(read=True, key_share=True)).first()
    if row is None:
        raise NotKept(f"version {version} is not kept any more: list the versions, and choose another")
    return _with_tags(connection, generation_id, [row])[0]


def read_kept(connection: Connection, generation_id: GenerationId, version: int) -> ManifestInfo:
    """Return a version. Raises NotKept."""
    found = read_manifest_row(connection, generation_id, manifests.c.version == version)
    if found is None:
        raise NotKept(f"version {version} is not kept any more: list the versions, and choose another")
    return found


def read_manifest_row(
    connection: Connection, generation_id: GenerationId, *conditions: sa.ColumnElement[bool]
) -> ManifestInfo | None:
    """Return the highest kept version that meets the conditions."""
    wanted = sa.select(manifests).where(manifests.c.generation_id == generation_id, *conditions)
    row = connection.execute(wanted.order_by(manifests.c.version.desc()).limit(1)).first()
    return None if row is None else _with_tags(connection, generation_id, [row])[0]


def is_kept(catalog: Catalog, generation_id: GenerationId, version: int) -> bool:
    """Say whether a version is kept now."""
    wanted = sa.select(manifests.c.version)
    wanted = wanted.where(manifests.c.generation_id == generation_id, manifests.c.version == version)
    with catalog.read() as connection:
        return connection.scalar(wanted) is not None


def list_manifests(
    connection: Connection, generation_id: GenerationId, *, before: int | None = None, limit: int
) -> list[ManifestInfo]:
    """Return up to ``limit`` kept versions, the newest first; the next page begins ``before`` the last one."""
    wanted = sa.select(manifests).where(manifests.c.generation_id == generation_id)
    if before is not None:
        wanted = wanted.where(manifests.c.version < before)
    rows = connection.execute(wanted.order_by(manifests.c.version.desc()).limit(limit)).all()
    return _with_tags(connection, generation_id, rows)


def _with_tags(connection: Connection, generation_id: GenerationId, rows: Sequence[Row[Any]]) -> list[ManifestInfo]:
    if not rows:
        return []
    named = sa.select(tags.c.version, tags.c.name).where(tags.c.generation_id == generation_id)
    between = tags.c.version.between(min(row.version for row in rows), max(row.version for row in rows))
    names: dict[int, list[str]] = {}
    for tag in connection.execute(named.where(between).order_by(tags.c.name)):
        names.setdefault(tag.version, []).append(tag.name)
    return [_info(row, tuple(names.get(row.version, ()))) for row in rows]


def _info(row: Row[Any], names: tuple[str, ...]) -> ManifestInfo:
    same = ("generation_id", "version", "name", "writer_epoch", "segment_count", "live_chunks", "size_bytes")
    values = {name: row._mapping[name] for name in (*same, "created_at", "followed_at")}  # noqa: SLF001
    return ManifestInfo(
        **values, origin=Origin(row.operation, row.origin_generation_id, row.origin_version), tags=names
    )
