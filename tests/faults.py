"""Faults that the crash tests put between a program and its store or catalog."""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from penstock.storage.catalog.engine import Catalog
from penstock.storage.objects.store import ObjectStore


class PulledPlug(Exception):
    """The fault that a test injects."""


def fail_before(_objects: ObjectStore, *_call: object) -> None:
    raise PulledPlug


def fail_after(_objects: ObjectStore, *_call: object) -> Callable[[], None]:
    def pull() -> None:
        raise PulledPlug

    return pull


def tear(objects: ObjectStore, method: str, *args: object) -> None:
    """A store without atomic writes: half of the object stays under its name."""
    if method == "put":
        name, parts = args
        data = b"".join(parts)
        objects.put(name, [data[: len(data) // 2]])
    raise PulledPlug


@contextmanager
def failing_statement(catalog: Catalog, at: int) -> Iterator[Callable[[], int]]:
    """Make the catalog fail before its n-th statement, as a server does that goes away; gives how many there were."""

    def fail(_connection: sa.Connection, _cursor: Any, statement: str, _parameters: Any) -> None:
        raise OperationalError(statement, {}, PulledPlug("database is locked"))

    with _before_statement(catalog, at, fail) as seen:
        yield seen


@contextmanager
def unanswered_statement(catalog: Catalog, at: int) -> Iterator[Callable[[], int]]:
    """Make the catalog fail after its n-th statement, which it did; gives how many there were."""

    def fail(connection: sa.Connection, cursor: Any, statement: str, parameters: Any) -> None:
        _again(connection, cursor, statement, parameters)
        raise OperationalError(statement, {}, PulledPlug("database is locked"))

    with _before_statement(catalog, at, fail) as seen:
        yield seen


@contextmanager
def repeated_statement(catalog: Catalog, at: int) -> Iterator[Callable[[], int]]:
    """Let a catalog in a file get its n-th statement twice, as if the answer was lost; gives how many there were."""
    with _before_statement(catalog, at, _again) as seen:
        yield seen


@contextmanager
def delayed_statement(catalog: Catalog, at: int, meanwhile: Callable[[], None]) -> Iterator[Callable[[], int]]:
    """Let something happen before the n-th statement; gives how many there were."""
    with _before_statement(catalog, at, lambda *_: meanwhile()) as seen:
        yield seen


def _again(_connection: sa.Connection, cursor: Any, statement: str, parameters: Any) -> None:
    try:
        cursor.connection.execute(statement, parameters).fetchall()
    except sqlite3.Error as error:
        raise OperationalError(statement, {}, error) from error


@contextmanager
def _before_statement(catalog: Catalog, at: int, act: Callable[..., None]) -> Iterator[Callable[[], int]]:
    engines, seen = (catalog._reader, catalog._writer), 0

    def before(connection: sa.Connection, cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            act(connection, cursor, statement, parameters)

    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", before)
    try:
        yield lambda: seen
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", before)


@contextmanager
def torn_commit(catalog: Catalog, transactions: Collection[str], *, committed: bool) -> Iterator[None]:
    """Pull the plug at the commit of these transactions: before it, or after it, so that its answer is lost."""
    write = catalog.write

    @contextmanager
    def torn(what: str = "catalog") -> Iterator[sa.Connection]:
        with write(what) as connection:
            yield connection
            if what in transactions and not committed:
                raise PulledPlug
        if what in transactions:
            raise PulledPlug

    catalog.write = torn
    try:
        yield
    finally:
        catalog.write = write
