"""A fresh catalog per test, once on SQLite and once on PostgreSQL.

PostgreSQL is the server at ``PENSTOCK_TEST_POSTGRES_URL`` (its user must be allowed to create databases), else a
private one. Where there is neither, those tests are skipped, and fail in CI.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import metadata
from penstock.storage.catalog.tenants import ensure_installation

from ..postgres_server import NoServer, PostgresServer


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    given = os.environ.get("PENSTOCK_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    try:
        server = PostgresServer()
    except NoServer as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"no PostgreSQL here: {error}")
    yield server.url
    server.stop()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite3"
    _migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """Return the URL of one database for the whole session: emptied per test, which is quicker than making it anew."""
    made = _new_database(postgres_url)
    url = next(made)
    _migrate(url)
    yield url
    next(made, None)


@pytest.fixture(params=["sqlite", "postgresql"])
def catalog_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a migrated catalog with the tenant ``default`` and nothing else."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "catalog.sqlite3")
        yield f"sqlite:///{tmp_path}/catalog.sqlite3"
    else:
        url = request.getfixturevalue("migrated_postgres")
        _empty(url)
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Return the URL of a database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/empty.sqlite3"
    else:
        yield from _new_database(request.getfixturevalue("postgres_url"))


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    opened = Catalog.open(catalog_url)
    yield opened
    opened.dispose()


def _new_database(server_url: str) -> Iterator[str]:
    name = f"penstock_{secrets.token_hex(6)}"
    _command(server_url, f"CREATE DATABASE {name}")
    yield _database(server_url, name)
    _command(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def _migrate(url: str) -> None:
    catalog = Catalog.open(url)
    migrate(catalog)
    ensure_installation(catalog, now=1.0, key="the key of these tests")
    catalog.dispose()


def _empty(url: str) -> None:
    catalog = Catalog.open(url)
    with catalog.write() as connection:
        for table in reversed(metadata.sorted_tables):
            connection.execute(sa.delete(table))
    ensure_installation(catalog, now=1.0, key="the key of these tests")
    catalog.dispose()


def _database(server_url: str, name: str) -> str:
    return make_url(server_url).set(database=name).render_as_string(hide_password=False)


def _command(server_url: str, statement: str) -> None:
    plain = make_url(server_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)
