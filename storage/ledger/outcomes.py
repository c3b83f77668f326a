"""How document versions end when the version of the index that holds, changes or drops them is committed.

Part of the publish transaction: the caller holds the rows, and has ended the versions before.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..catalog.tables import IS_INDEXED, versions
from ..catalog.values import slices
from ..ids import GenerationId, ManifestVersion
from .contents import VersionRow

# What an update takes over from the version it changes: all that its text decides.
CONTENT = tuple(versions.c[name] for name in ("content_hash", "pack", "pack_offset", "size_bytes", "chunk_count"))
Key = tuple[str, str]  # collection and document: a fork shares the ids of documents with its origin


def key_of(row: VersionRow | Row[Any]) -> Key:
    return row.collection_id, row.document_id


def mark_published(
    connection: Connection,
    published: Sequence[VersionRow],
    *,
    bases: Mapping[Key, Row[Any]],
    trimmed: Mapping[str, int],
    served_by: tuple[GenerationId, ManifestVersion],
    now: float,
) -> None:
    """End these versions: puts and updates as indexed, deletes as deleted, trims as trimmed.

    ``bases``: by document, the version that was indexed before, with the columns of `CONTENT`. ``served_by``: the
    generation and the version of it that is being published.
    """
    by_action: dict[str, list[VersionRow]] = {}
    for row in published:
        by_action.setdefault(row.action, []).append(row)
    generation_id, version = served_by
    ended = {"generation_id": generation_id, "indexed_version": version, "finished_at": now, "former_death": None}
    taken: Counter[Key] = Counter()
    for row in by_action.get("trim", ()):
        taken[key_of(row)] += trimmed.get(row.id, 0)
    _end(connection, by_action.get("put", ()), {**ended, "state": "indexed"})
    _end_updates(connection, by_action.get("update", ()), {**ended, "state": "indexed"}, bases=bases, taken=taken)
    # What it said goes with the document; which source it was stays until the row is pruned.
    forgotten: dict[str, Any] = {"title": None, "metadata": {}, "event_time": None, "expires_at": None, "size_bytes": 0}
    _end(connection, by_action.get("delete", ()), {**ended, **forgotten, "state": "deleted"})
    _end_trims(connection, by_action.get("trim", ()), {**ended, "state": "trimmed"}, trimmed=trimmed)
    touched = {key_of(row) for row in published if row.action != "trim"}
    _count_taken(connection, {key: count for key, count in taken.items() if count and key not in touched})


# No row is updated twice here: PostgreSQL would look for its document and its job once more, which others may hold.


def _end(connection: Connection, rows: Sequence[VersionRow], values: Mapping[str, Any]) -> None:
    ended = sa.update(versions).where(versions.c.id.in_(sa.bindparam("ids", expanding=True))).values(values)
    for some in slices([row.id for row in rows]):
        connection.execute(ended, {"ids": some})


def _end_updates(
    connection: Connection,
    updates: Sequence[VersionRow],
    values: Mapping[str, Any],
    *,
    bases: Mapping[Key, Row[Any]],
    taken: Mapping[Key, int],
) -> None:
    """End updates with the content of the version that was indexed, which their text now is."""
    ended = sa.update(versions).where(versions.c.id == sa.bindparam("version"))
    ended = ended.values({**values, **{column.name: sa.bindparam(f"base_{column.name}") for column in CONTENT}})
    rows = []
    for row in updates:
        base = bases.get(key_of(row))
        content = {column.name: getattr(base, column.name) for column in CONTENT} if base else _own(row)
        content["chunk_count"] = (content["chunk_count"] or 0) - taken.get(key_of(row), 0)
        rows.append({"version": row.id} | {f"base_{name}": value for name, value in content.items()})
    if rows:
        connection.execute(ended, rows)


def _own(row: VersionRow) -> dict[str, Any]:
    """Return the content of an update of which nothing was indexed any more."""
    named = {column.name: getattr(row, column.name) for column in CONTENT if column.name != "chunk_count"}
    return {**named, "chunk_count": 0}


def _end_trims(
    connection: Connection, trims: Sequence[VersionRow], values: Mapping[str, Any], *, trimmed: Mapping[str, int]
) -> None:
    """End trims with the number of chunks that each took."""
    ended = sa.update(versions).where(versions.c.id == sa.bindparam("trim"))
    rows = [{"trim": row.id, "took": trimmed.get(row.id, 0)} for row in trims]
    if rows:
        connection.execute(ended.values({**values, "chunk_count": sa.bindparam("took")}), rows)


def _count_taken(connection: Connection, taken: Mapping[Key, int]) -> None:
    """Take chunks off the count of the versions that had them."""
    served = sa.update(versions).where(versions.c.collection_id == sa.bindparam("collection"))
    served = served.where(versions.c.document_id == sa.bindparam("document"), IS_INDEXED)
    rows = [
        {"collection": collection, "document": document, "taken": count}
        for (collection, document), count in taken.items()
    ]
    if rows:
        connection.execute(served.values(chunk_count=versions.c.chunk_count - sa.bindparam("taken")), rows)
