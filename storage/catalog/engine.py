"""One door to the SQL server: short consistent reads, serial writes, the same on SQLite and PostgreSQL.

It opens connections and translates their failures; it knows no table.
"""

import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine, make_url

from ..errors import Damaged, InvalidName, Unavailable, Unsupported
from ..failpoints import hit

LOCK_WAIT_S = 30
LOCK_LOOK_S = 0.001  # the first pause between two looks whether the write lock is free
LOCK_PAUSE_S = 0.008  # the longest; whoever looks more often than others is mostly the next
LOG_KEPT_BYTES = 64 << 20  # of SQLite's log: what one large transaction made of it is given back after the next one
OLDEST_SQLITE = (3, 35, 0)  # UPDATE … RETURNING
_WRITES = "penstock_writes"
_compact_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_SQLITE_DAMAGED = ("not a database", "malformed")
_SQLITE_LOCKED = ("locked", "busy")
_SQLITE_TRY_AGAIN = (*_SQLITE_LOCKED, "disk is full", "disk i/o", "unable to open")


class Catalog:
    """The SQL catalog and ledger. Safe to share between threads, and to keep across a fork.

    Reads see one state of the database from their first statement to their last and never wait for a writer.
    Writes commit when the block ends and roll back when it raises. On SQLite they run one at a time; on PostgreSQL
    they are READ COMMITTED, so statements that race must lock their rows.
    """

    def __init__(self, engine: Engine) -> None:
        self._reader = engine.execution_options(**_read_options(engine))
        self._writer = engine.execution_options(**{_WRITES: True})
        self._address = engine.url.render_as_string(hide_password=True)
        self.dialect = engine.dialect.name
        _leave_connections_out_of_forks(engine)

    @classmethod
    def open(cls, url: str, *, lock_pause_s: float = LOCK_LOOK_S) -> Self:
        """Return the catalog at ``url``: ``sqlite:////folder/catalog.db`` or ``postgresql://user@host/name``.

        Nothing is connected until the first use. ``lock_pause_s``: of SQLite, the longest pause between two looks
        whether the write lock is free. `LOCK_PAUSE_S` lets others go first.

        Raises:
            InvalidName: the URL is malformed, names another kind of database, or SQLite without a file.
            Unsupported: the SQLite library is older than 3.35.
        """
        try:
            address = make_url(url)
        except sa.exc.ArgumentError as error:
            raise InvalidName(
                "the catalog URL cannot be read: use sqlite:////path/to/file or postgresql://…"
            ) from error
        match address.get_backend_name():
            case "sqlite":
                return cls(_sqlite_engine(address, lock_pause_s=lock_pause_s))
            case "postgresql" | "postgres":
                return cls(_postgresql_engine(address))
            case other:
                raise InvalidName(
                    f"the catalog cannot be kept in {other!r}: use sqlite:////path/to/file or postgresql://…"
                )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one state of the database. What it changes is not kept.

        Raises:
            Unavailable: the server does not answer, or the file cannot be opened.
            Damaged: the file is no database.
        """
        with self._translated(), self._reader.connect() as connection:
            yield connection

    @contextmanager
    def write(self, what: str = "catalog") -> Iterator[Connection]:
        """Give a connection whose changes are durable when the block ends, and gone when it raises.

        ``what`` names the two failpoints, ``<what>.before_commit`` and ``<what>.after_commit``.

        Raises:
            Unavailable: the server does not answer, or the write lock was not free within 30 s. Try again.
            Damaged: the file is no database.
        """
        with self._translated(), self._writer.begin() as connection:
            yield connection
            hit(f"{what}.before_commit")
        hit(f"{what}.after_commit")

    def dispose(self) -> None:
        """Close the idle connections. The catalog stays usable."""
        self._writer.dispose()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            if not _is_transient(error):
                raise
            reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
            raise Unavailable(f"the catalog at {self._address} did not answer: {reason}. Try again.") from error
        except sa.exc.DatabaseError as error:
            if not isinstance(error.orig, sqlite3.Error) or not _is_one_of(_SQLITE_DAMAGED, error.orig):
                raise
            raise Damaged(
                f"the catalog at {self._address} cannot be read: {error.orig}; restore it, or move it away and make it "
                "again from the objects with `penstock doctor --rebuild-catalog`"
            ) from error


def _sqlite_engine(address: URL, *, lock_pause_s: float) -> Engine:
    if not address.database or address.database == ":memory:":
        raise InvalidName("the catalog needs a file that every process can open: use sqlite:////path/to/file")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise Unsupported(f"SQLite {sqlite3.sqlite_version} is too old: the catalog needs 3.35, or PostgreSQL")
    engine = sa.create_engine(
        address.set(drivername="sqlite+pysqlite"),
        connect_args={"timeout": LOCK_WAIT_S},
        hide_parameters=True,  # an error in a log must not show titles and metadata
        json_serializer=_compact_json,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", partial(_begin_sqlite, lock_pause_s=lock_pause_s))
    return engine


def _postgresql_engine(address: URL) -> Engine:
    return sa.create_engine(
        address.set(drivername="postgresql+psycopg"),
        connect_args={"connect_timeout": 10, "options": f"-c lock_timeout={LOCK_WAIT_S}s"},
        isolation_level="READ COMMITTED",
        hide_parameters=True,
        json_serializer=_compact_json,
        pool_pre_ping=True,  # the server may have been restarted since
    )


def _read_options(engine: Engine) -> dict[str, Any]:
    if engine.dialect.name == "sqlite":
        return {_WRITES: False}  # any read transaction of SQLite in WAL mode is a snapshot
    return {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    # Left to itself the driver begins transactions late and never before a SELECT; _begin_sqlite says when.
    connection.isolation_level = None
    _enter_wal(connection)
    log_kept = f"journal_size_limit={LOG_KEPT_BYTES}"
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY", "cache_size=-16384", log_kept):
        connection.execute(f"PRAGMA {pragma}")


def _enter_wal(connection: sqlite3.Connection) -> None:
    """Set the journal mode. SQLite does not wait for the lock here, so two first processes would collide."""
    deadline = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _begin_sqlite(connection: Connection, *, lock_pause_s: float) -> None:
    # IMMEDIATE takes the write lock at once: a read that turned into a write later could not wait for it.
    if connection.get_execution_options().get(_WRITES):
        _begin_writing(connection, lock_pause_s=lock_pause_s)
    else:
        connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: Connection, *, lock_pause_s: float) -> None:
    """Take the write lock as soon as it is free.

    SQLite's own waiting would sleep up to a tenth of a second between two looks, for a lock that is held for a few
    milliseconds, so that whoever came last would mostly be first.
    """
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.execute("PRAGMA busy_timeout=0")
    try:
        deadline, pause_s = time.monotonic() + LOCK_WAIT_S, LOCK_LOOK_S
        while _is_locked(driver) and time.monotonic() < deadline:
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, lock_pause_s)
        if not driver.in_transaction:
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # what fails, fails here as `Catalog` knows it
    finally:
        driver.execute(f"PRAGMA busy_timeout={round(LOCK_WAIT_S * 1000)}")


def _is_locked(driver: sqlite3.Connection) -> bool:
    """Begin to write, unless somebody else does: then that is returned."""
    try:
        driver.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        return _is_one_of(_SQLITE_LOCKED, error)
    return False


def _is_transient(error: sa.exc.SQLAlchemyError) -> bool:
    cause = getattr(error, "orig", None)
    if isinstance(cause, sqlite3.Error):
        return _is_one_of(_SQLITE_TRY_AGAIN, cause)
    return True


def _is_one_of(words: tuple[str, ...], error: sqlite3.Error) -> bool:
    return any(word in str(error).lower() for word in words)


def _leave_connections_out_of_forks(engine: Engine) -> None:
    """Close idle connections before each fork, and forget the others in the child.

    A child that shared its parent's socket would mix their statements; one that shared its SQLite handle would
    believe to hold locks that only the parent has.
    """
    alive = weakref.ref(engine)

    def close_idle() -> None:
        if (found := alive()) is not None:
            found.pool.dispose()  # the pool itself stays: connections in use in other threads come back to it

    def forget() -> None:
        if (found := alive()) is not None:
            found.dispose(close=False)

    os.register_at_fork(before=close_idle, after_in_child=forget)
