"""Reads see one state, writes are whole, and neither is confused by threads, forks or a busy server."""

import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import sqlalchemy as sa

from penstock.storage.catalog import engine as engine_module
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import installation, tenants
from penstock.storage.errors import InvalidName, Unavailable

MAY_FORK = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def forked(work: Callable[[], int]) -> int:
    """Do ``work`` in a child, whose exit code is what it returns, and return the child's process id."""
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return child


def exit_code(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def add(connection: sa.Connection, *added: str) -> None:
    for name in added:
        connection.execute(sa.insert(tenants).values(id=name, created_at=1.0))


def names(connection: sa.Connection) -> list[str]:
    return list(connection.scalars(sa.select(tenants.c.id).order_by(tenants.c.id)))


def read_names(catalog: Catalog) -> list[str]:
    with catalog.read() as connection:
        return names(connection)


def test_a_write_is_kept_when_the_block_ends_and_gone_when_it_raises(catalog):
    with catalog.write() as connection:
        add(connection, "acme")
    with pytest.raises(sa.exc.IntegrityError), catalog.write() as connection:
        add(connection, "globex", "acme")
    assert read_names(catalog) == ["acme", "default"]


def test_a_read_sees_one_state_while_a_writer_commits(catalog):
    with catalog.read() as reader:
        before = names(reader)
        with catalog.write() as writer:
            add(writer, "acme")
        assert names(reader) == before
    assert read_names(catalog) == [*["acme"], *before]


def test_what_a_reader_changes_is_not_kept(catalog):
    refused = nullcontext() if catalog.dialect == "sqlite" else pytest.raises(sa.exc.DBAPIError, match="read-only")
    with refused, catalog.read() as connection:
        add(connection, "acme")
    assert read_names(catalog) == ["default"]


def test_writers_of_many_threads_wait_for_each_other(catalog):
    def write(number: int) -> None:
        with catalog.write() as connection:
            add(connection, f"t{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(24)))
    assert len(read_names(catalog)) == 25


@MAY_FORK
def test_writers_of_many_processes_lose_no_update(catalog, catalog_url):
    with catalog.write() as connection:
        connection.execute(sa.update(installation).values(created_at=0.0))
    children = [forked(lambda: count(catalog_url, 25)) for _ in range(4)]
    assert [exit_code(child) for child in children] == [0] * 4
    with catalog.read() as connection:
        assert connection.scalar(sa.select(installation.c.created_at)) == 100.0


def count(url: str, times: int) -> int:
    catalog = Catalog.open(url)
    for _ in range(times):
        with catalog.write() as connection:
            held = sa.select(installation.c.created_at).with_for_update()
            found = connection.scalar(held)
            connection.execute(sa.update(installation).values(created_at=found + 1))
    catalog.dispose()
    return 0


@MAY_FORK
def test_parent_and_child_both_work_on_after_a_fork(catalog):
    busy, free = threading.Event(), threading.Event()
    other = threading.Thread(target=_keep_reading, args=(catalog, busy, free))  # a connection in use during the fork
    other.start()
    assert busy.wait(10)
    assert read_names(catalog) == ["default"]  # leaves an idle one
    pool = catalog._writer.pool

    def work() -> int:
        inherited = catalog._writer.pool is pool
        with catalog.write() as connection:
            add(connection, "child")
        return 5 if inherited else 0 if read_names(catalog) == ["child", "default"] else 3

    child = forked(work)
    idle = catalog._writer.pool.checkedin()
    ended = exit_code(child)
    free.set()
    other.join()
    assert idle == 0  # closed before the fork: SQLite must not be carried over, not even to be closed
    assert ended == 0
    with catalog.write() as connection:
        add(connection, "parent")
    assert read_names(catalog) == ["child", "default", "parent"]


def _keep_reading(catalog: Catalog, busy: threading.Event, free: threading.Event) -> None:
    with catalog.read() as connection:
        names(connection)
        busy.set()
        free.wait(10)
        names(connection)


def test_a_lock_that_is_never_free_makes_the_catalog_unavailable(catalog_url, monkeypatch):
    monkeypatch.setattr(engine_module, "LOCK_WAIT_S", 0.2)
    catalog = Catalog.open(catalog_url)
    with catalog.write() as holder:
        holder.execute(sa.update(installation).values(created_at=7.0))
        with pytest.raises(Unavailable, match=r"did not answer: .*Try again"), catalog.write() as connection:
            connection.execute(sa.update(installation).values(created_at=8.0))
    with catalog.read() as connection:
        assert connection.scalar(sa.select(installation.c.created_at)) == 7.0
    catalog.dispose()


@pytest.mark.parametrize("most_s", [engine_module.LOCK_LOOK_S, engine_module.LOCK_PAUSE_S])
def test_a_writer_sees_within_milliseconds_that_the_lock_is_free(tmp_path, monkeypatch, most_s):
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'catalog.db'}", lock_pause_s=most_s)
    with catalog.write() as connection:
        connection.execute(sa.text("CREATE TABLE words (word TEXT)"))
    pauses: list[float] = []
    holder = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")

    def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        if len(pauses) == 50:
            holder.execute("COMMIT")

    monkeypatch.setattr(engine_module.time, "sleep", sleep)
    with catalog.write() as connection:
        connection.execute(sa.text("INSERT INTO words VALUES ('free')"))
    monkeypatch.undo()
    holder.close()
    assert len(pauses) == 50
    assert max(pauses) == most_s <= 0.01
    catalog.dispose()


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path):
    for url in (f"postgresql://someone:s3cret@/db?host={tmp_path}", f"sqlite:///{tmp_path}/no/folder/catalog.sqlite3"):
        catalog = Catalog.open(url)
        with pytest.raises(Unavailable, match=str(tmp_path)) as caught, catalog.read():
            pass
        assert "s3cret" not in str(caught.value)


def test_a_mistake_in_a_statement_is_not_called_an_outage(catalog):
    with pytest.raises(sa.exc.DBAPIError), catalog.read() as connection:
        connection.execute(sa.text("SELECT nothing FROM nowhere"))


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://x/y", "sqlite://", "sqlite:///:memory:"])
def test_an_address_that_cannot_work_is_refused_with_an_example(url):
    with pytest.raises(InvalidName, match="sqlite:////path/to/file"):
        Catalog.open(url)


def test_sqlite_is_durable_and_checks_its_keys(tmp_path):
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite3")
    with catalog.read() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
        }
        found["foreign_keys"] = connection.exec_driver_sql("PRAGMA foreign_keys").scalar()
    catalog.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}


def test_the_room_that_a_large_transaction_took_in_the_log_of_sqlite_is_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_module, "LOG_KEPT_BYTES", 1 << 20)
    catalog, log = Catalog.open(f"sqlite:///{tmp_path}/catalog.sqlite3"), tmp_path / "catalog.sqlite3-wal"
    with catalog.write() as connection:
        connection.exec_driver_sql("CREATE TABLE large (content BLOB)")
        connection.exec_driver_sql(f"INSERT INTO large VALUES (zeroblob({8 << 20}))")
    assert log.stat().st_size > 8 << 20
    with catalog.write() as connection:
        connection.exec_driver_sql("CREATE TABLE small (content BLOB)")
    assert log.stat().st_size <= 1 << 20
    catalog.dispose()


def test_a_first_use_waits_while_another_process_changes_the_journal_mode(tmp_path):
    path = tmp_path / "catalog.sqlite3"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE x (y)")
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.2, lambda: other.execute("COMMIT"))
    release.start()
    catalog = Catalog.open(f"sqlite:///{path}")
    with catalog.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    release.join()
    other.close()
    catalog.dispose()
