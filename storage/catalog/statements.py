"""The statements that SQLite and PostgreSQL spell differently: INSERT, and what becomes of rows that are there."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection


def insert_if_absent(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Insert one row unless it breaks a unique constraint. Returns whether it was inserted."""
    # RETURNING, because a driver need not count the rows of an INSERT.
    made = _leaving(connection.dialect.name, table).values(row).returning(sa.literal(1))
    return connection.execute(made).first() is not None


def insert_absent(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert those of the rows that break no unique constraint."""
    if rows:
        connection.execute(_leaving(connection.dialect.name, table), rows)


def insert_or_replace(connection: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows, each with all columns, in place of those of the same primary key."""
    if rows:
        connection.execute(_replacing(connection.dialect.name, table), rows)


@cache
def _leaving(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    return _of(dialect, table).on_conflict_do_nothing()


@cache
def _replacing(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    insert, key = _of(dialect, table), list(table.primary_key.columns)
    replaced = {column.name: insert.excluded[column.name] for column in table.columns if column not in set(key)}
    return insert.on_conflict_do_update(index_elements=key, set_=replaced)


def _of(dialect: str, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)
