"""A role that cannot work says why in one line and ends, before it takes anything from the queue."""

import pytest
import sqlalchemy as sa

from penstock.settings import wiring
from penstock.settings.model import Settings
from penstock.storage.catalog.collections import create_collection
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ids import TenantId
from penstock.workers.run import ROLES, main


@pytest.fixture
def settings(tmp_path, monkeypatch) -> Settings:
    monkeypatch.setenv("PENSTOCK_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return Settings(data_dir=tmp_path)


def refusal(capsys, *arguments: str) -> str:
    assert main(arguments) == 1
    [line] = capsys.readouterr().err.splitlines()
    return line


def test_an_unknown_role_is_answered_with_those_there_are(settings, capsys):
    line = refusal(capsys, "chunks")

    assert all(role in line for role in ROLES)


def test_an_unknown_shard_is_refused(settings, capsys):
    catalog = wiring.open_catalog(settings)
    migrate(catalog)
    catalog.dispose()

    assert "workers.shards is 1" in refusal(capsys, "index", "--shard", "0", "--shard", "1")


@pytest.mark.parametrize("role", ["index", "beat"])
def test_fewer_shards_than_collections_were_made_in_are_refused(settings, capsys, role):
    catalog = wiring.open_catalog(settings)
    migrate(catalog)
    create_tenant(catalog, TenantId("acme"), now=1.0)
    info = create_collection(
        catalog,
        tenant=TenantId("acme"),
        name="docs",
        model="hash",
        dimensions=256,
        metric="cosine",
        chunking={},
        shards=1_000,
        now=1.0,
    )
    catalog.dispose()
    line = refusal(capsys, role)

    assert f"collections of shard {info.generation.shard}" in line
    assert f"workers.shards to at least {info.generation.shard + 1}" in line


@pytest.mark.parametrize("role", ["chunk", "beat"])
def test_a_catalog_that_was_never_migrated_is_refused(settings, capsys, role):
    assert "penstock migrate" in refusal(capsys, role)


@pytest.mark.parametrize("role", ["index", "beat"])
def test_a_newer_schema_is_refused(settings, capsys, role):
    catalog = wiring.open_catalog(settings)
    migrate(catalog)
    with catalog.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    catalog.dispose()

    assert "upgrade penstock" in refusal(capsys, role)


def test_wrong_settings_are_named(settings, capsys, monkeypatch):
    monkeypatch.setenv("PENSTOCK_WORKERS__LEASES", "3")

    assert "PENSTOCK_WORKERS__LEASE_S" in refusal(capsys, "chunk")
