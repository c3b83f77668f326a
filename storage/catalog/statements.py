"""The statement that SQLite and PostgreSQL spell differently: INSERT, unless a unique constraint says it is there."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection


def insert_if_absent(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert one row unless it breaks a unique constraint. Returns whether it was inserted."""
    # RETURNING, because a driver need not count the rows of an INSERT.
    made = _insert(connection, table).values(row).returning(sa.literal(1))
    return connection.execute(made).first() is not None


def insert_absent(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those of the rows that break no unique constraint."""
    if rows:
        connection.execute(_insert(connection, table), rows)


def _insert(connection: Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    insert = sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
    return insert.on_conflict_do_nothing()
