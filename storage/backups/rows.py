"""Rows of the catalog as lines of JSON, the same whichever server they come from or go to."""

import base64
import gzip
import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.values import batched
from ..errors import Damaged

_AT_ONCE = 1_000
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def write_rows(connection: Connection, table: sa.Table, condition: sa.ColumnElement[bool], path: Path) -> int:
    """Write the rows of a table that fulfil a condition, by primary key; returns how many."""
    binary = _binary(table)
    wanted = sa.select(table).where(condition).order_by(*table.primary_key.columns)
    count = 0
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
        for row in connection.execute(wanted, execution_options={"yield_per": _AT_ONCE}).mappings():
            values = {name: _packed(value) if name in binary else value for name, value in row.items()}
            file.write(_encode(values) + "\n")
            count += 1
    return count


def read_rows(table: sa.Table, path: Path) -> Iterator[dict[str, Any]]:
    """Yield what `write_rows` wrote. Raises Damaged: a line is no row of this table."""
    binary = _binary(table)
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            values: dict[str, Any] = json.loads(line)
            if unknown := values.keys() - set(table.c.keys()):
                raise Damaged(f"{path} has columns that table {table.name} has not: {', '.join(sorted(unknown))}")
            yield {name: _unpacked(value) if name in binary else value for name, value in values.items()}


def insert_rows(connection: Connection, table: sa.Table, path: Path) -> int:
    """Insert the rows that `write_rows` wrote; returns how many."""
    count = 0
    for some in batched(read_rows(table, path), _AT_ONCE):
        connection.execute(sa.insert(table), list[Mapping[str, Any]](some))
        count += len(some)
    return count


def checksum(path: Path) -> str:
    """Return the blake2b-256 of a file in hex."""
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()


def _binary(table: sa.Table) -> frozenset[str]:
    return frozenset(column.name for column in table.c if isinstance(column.type, sa.LargeBinary))


def _packed(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _unpacked(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)
