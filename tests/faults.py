"""Faults that the crash tests put between a program and its store or catalog."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

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
    engines, seen = (catalog._reader, catalog._writer), 0

    def before(_connection, _cursor, statement, *_rest) -> None:
        nonlocal seen
        seen += 1
        if seen == at:
            raise OperationalError(statement, {}, PulledPlug("database is locked"))

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
