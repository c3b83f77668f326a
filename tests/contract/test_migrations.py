"""The schema: made by its revisions, equal to tables/, and refused when it is newer than the program."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import check_schema, migrate
from penstock.storage.catalog.tables import metadata
from penstock.storage.errors import Unavailable, Unsupported


@pytest.fixture
def empty(empty_url: str) -> Iterator[Catalog]:
    opened = Catalog.open(empty_url)
    yield opened
    opened.dispose()


def described(catalog: Catalog) -> dict[str, object]:
    with catalog.read() as connection:
        found = sa.inspect(connection)
        tables = sorted(name for name in found.get_table_names() if name != "alembic_version")
        return {name: _table(found, name) for name in tables}


def _table(found: sa.Inspector, name: str) -> dict[str, object]:
    columns = [(one["name"], repr(one["type"]), one["nullable"], one["default"]) for one in found.get_columns(name)]
    checks = sorted((one["name"], one["sqltext"]) for one in found.get_check_constraints(name))
    keys = sorted(
        (one["name"], one["constrained_columns"], one["referred_table"]) for one in found.get_foreign_keys(name)
    )
    indexes = sorted((one["name"], one["column_names"], one["unique"], _where(one)) for one in found.get_indexes(name))
    uniques = sorted((one["name"], one["column_names"]) for one in found.get_unique_constraints(name))
    primary = found.get_pk_constraint(name)
    return {
        "columns": columns,
        "checks": checks,
        "foreign keys": keys,
        "indexes": indexes,
        "uniques": uniques,
        "primary key": (primary["name"], primary["constrained_columns"]),
    }


def _where(index: dict[str, object]) -> str:
    return str(sorted((name, str(value)) for name, value in index.get("dialect_options", {}).items()))


def test_the_revisions_make_what_tables_py_says(empty):
    migrate(empty)
    made = described(empty)
    with empty.write() as connection:
        metadata.drop_all(connection)
        metadata.create_all(connection)
    said = described(empty)

    assert made.keys() == said.keys()
    for table, facts in said.items():
        assert made[table] == facts, table


def test_migrating_twice_and_from_two_sides_at_once_is_harmless(empty):
    with ThreadPoolExecutor(4) as threads:
        for outcome in [threads.submit(migrate, empty) for _ in range(4)]:
            outcome.result()
    check_schema(empty)
    migrate(empty)
    check_schema(empty)


def test_a_catalog_without_tables_says_what_to_run(empty):
    with pytest.raises(Unavailable, match="no tables yet: run `penstock up`"):
        check_schema(empty)


def test_a_newer_schema_is_refused_and_left_alone(empty):
    migrate(empty)
    with empty.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for refuse in (check_schema, migrate):
        with pytest.raises(Unsupported, match="'9999' is newer than this program"):
            refuse(empty)


def test_a_migration_that_dies_leaves_nothing_behind(empty, monkeypatch):
    monkeypatch.setattr("penstock.storage.catalog.engine.hit", _die)
    with pytest.raises(RuntimeError, match="the power went out"):
        migrate(empty)
    with empty.read() as connection:
        assert sa.inspect(connection).get_table_names() == []


def _die(name: str) -> None:
    if name.endswith(".before_commit"):
        raise RuntimeError("the power went out")
