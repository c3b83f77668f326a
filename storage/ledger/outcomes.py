"""How document versions end when the version of the index that holds, changes or drops them is committed.

Part of the publish transaction: the caller holds the rows, and has ended the versions before.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.tables import IS_INDEXED, versions
from ..catalog.values import slices
from ..ids import ManifestVersion
from .contents import VersionRow

# What an update takes over from the version it changes: all that its text decides.
CONTENT = tuple(versions.c[name] for name in ("content_hash", "pack", "pack_offset", "size_bytes", "chunk_count"))
Key = tuple[str, str]  # generation and document: a fork shares the ids of documents with its origin


def key_of(row: VersionRow | Row[Any]) -> Key:
    return row.generation_id, row.document_id


def mark_published(
    connection: Connection,
    published: Sequence[VersionRow],
    *,
    bases: Mapping[Key, Row[Any]],
    trimmed: Mapping[str, int],
    version: ManifestVersion,
    now: float,
) -> None:
    """End these versions: puts and updates as indexed, deletes as deleted, trims as trimmed.

    ``bases``: by document, the version that was indexed before, with the columns of `CONTENT`.
    """
    by_action: dict[str, list[VersionRow]] = {}
    for row in published:
        by_action.setdefault(row.action, []).append(row)
    ended = {"indexed_version": version, "finished_at": now}
    indexed = [*by_action.get("put", ()), *by_action.get("update", ())]
    _end(connection, indexed, {**ended, "state": "indexed"})
    _inherit(connection, by_action.get("update", ()), bases)
    # What it said goes with the document; which source it was stays until the row is pruned.
    forgotten: dict[str, Any] = {"title": None, "metadata": {}, "event_time": None, "expires_at": None, "size_bytes": 0}
    _end(connection, by_action.get("delete", ()), {**ended, **forgotten, "state": "deleted"})
    _end(connection, by_action.get("trim", ()), {**ended, "state": "trimmed"})
    _count_trimmed(connection, by_action.get("trim", ()), trimmed)


def _end(connection: Connection, rows: Sequence[VersionRow], values: Mapping[str, Any]) -> None:
    for some in slices([row.id for row in rows]):
        connection.execute(sa.update(versions).where(versions.c.id.in_(some)).values(values))


def _inherit(connection: Connection, updates: Sequence[VersionRow], bases: Mapping[Key, Row[Any]]) -> None:
    """Give each update the content of the version that was indexed, which its text now is."""
    changed = sa.update(versions).where(versions.c.id == sa.bindparam("version"))
    changed = changed.values({column.name: sa.bindparam(f"base_{column.name}") for column in CONTENT})
    rows = [
        {"version": row.id} | {f"base_{column.name}": getattr(bases[key_of(row)], column.name) for column in CONTENT}
        for row in updates
        if key_of(row) in bases
    ]
    if rows:
        connection.execute(changed, rows)


def _count_trimmed(connection: Connection, trims: Sequence[VersionRow], trimmed: Mapping[str, int]) -> None:
    """Record how many chunks each trim took, and take them off the count of the version that had them."""
    counts = [
        {"trim": row.id, "generation": row.generation_id, "document": row.document_id, "taken": trimmed.get(row.id, 0)}
        for row in trims
    ]
    if not counts:
        return
    mine = sa.update(versions).where(versions.c.id == sa.bindparam("trim"))
    connection.execute(mine.values(chunk_count=sa.bindparam("taken")), [_only(one, "trim", "taken") for one in counts])
    served = sa.update(versions).where(versions.c.generation_id == sa.bindparam("generation"))
    served = served.where(versions.c.document_id == sa.bindparam("document"), IS_INDEXED)
    served = served.values(chunk_count=versions.c.chunk_count - sa.bindparam("taken"))
    connection.execute(served, [_only(one, "generation", "document", "taken") for one in counts])


def _only(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: values[name] for name in names}
