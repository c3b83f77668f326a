"""A fresh catalog per test, once on SQLite and once on PostgreSQL."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tables import metadata
from penstock.storage.catalog.tenants import ensure_installation

from ..postgres_server import new_database
from ..storage_samples import ADMIN_KEY, new_catalog


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.sqlite3"
    new_catalog(f"sqlite:///{path}").dispose()
    return path


@pytest.fixture(scope="session")
def migrated_postgres(postgres_url: str) -> Iterator[str]:
    """Return the URL of one database for the whole session: emptied per test, which is quicker than making it anew."""
    with new_database(postgres_url) as url:
        new_catalog(url).dispose()
        yield url


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
        with new_database(request.getfixturevalue("postgres_url")) as url:
            yield url


@pytest.fixture
def catalog(catalog_url: str) -> Iterator[Catalog]:
    opened = Catalog.open(catalog_url)
    yield opened
    opened.dispose()


@pytest.fixture
def postgres_catalog(migrated_postgres: str) -> Iterator[Catalog]:
    """For races that SQLite cannot have, because one transaction writes at a time."""
    _empty(migrated_postgres)
    opened = Catalog.open(migrated_postgres)
    yield opened
    opened.dispose()


def _empty(url: str) -> None:
    catalog = Catalog.open(url)
    with catalog.write() as connection:
        connection.exec_driver_sql(";".join(f"DELETE FROM {table.name}" for table in reversed(metadata.sorted_tables)))
    ensure_installation(catalog, now=1.0, key=ADMIN_KEY)
    catalog.dispose()
