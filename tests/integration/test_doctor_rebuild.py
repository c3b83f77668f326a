"""`penstock doctor --rebuild-catalog`: a service over the new catalog serves and lists what the old one did."""

from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.client import NewDocument
from penstock.storage.catalog.collections import get_collection
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.references import CURRENT
from penstock.storage.catalog.tables import collections, documents, generations, manifests, shards, tenants, versions
from penstock.storage.catalog.tenants import create_tenant
from penstock.storage.ids import TenantId
from penstock.storage.inspection import rebuilding
from penstock.storage.publishing import forks
from penstock.storage.publishing.forks import fork_collection

from ..examined_installation import Installation, submit, texts
from ..http_service import Service, running_service

# Of a document: only the catalog knew.
FORGOTTEN = {"job_id", "finished_at", "indexed_version", "searchable_version", "searchable_at"}


def lose_catalog(installation: Installation) -> None:
    installation.close()
    for path in installation.folder.glob("catalog.sqlite3*"):
        path.unlink()
    installation.__post_init__()


def answers(service: Service) -> dict[str, Any]:
    """What a tenant's applications see: documents, collections and the hits of some searches."""
    told: dict[str, Any] = {}
    for tenant, name in (("default", "books"), ("other", "notes")):
        with service.penstock(tenant) as penstock:
            listed = [one.model_dump(exclude=FORGOTTEN) for one in penstock.all_documents(name)]
            told[tenant] = sorted(listed, key=lambda one: one["source"])
            told[f"{tenant} collection"] = penstock.collection(name).model_dump(exclude={"created_at", "published_at"})
            for query in (*list(texts("b", 5).values()), *list(texts("c", 3).values()), "word17 word42"):
                found = penstock.search(name, query, k=5, explain=False)
                told[f"{tenant} {query}"] = [hit.model_dump() for hit in found.hits], found.version
            if tenant == "default":
                filtered = penstock.search(name, "word1", k=5, filter={"type": "lt", "key": "number", "value": 4})
                told["filtered"] = [hit.model_dump() for hit in filtered.hits]
    return told


def test_a_service_over_the_rebuilt_catalog_gives_equal_searches_and_lists(installation):
    with running_service(installation.folder, made=True) as service:
        before = answers(service)
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=0)
    assert told["rebuilt"] == {"tenants": 2, "collections": 2, "versions": 6, "documents": 145}
    assert told["findings"] == []
    with running_service(installation.folder, made=True) as service:
        assert answers(service) == before


def test_what_is_rebuilt_is_clean_and_writers_go_on(installation):
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=0)
    assert installation.doctor(code=0)["findings"] == []
    with running_service(installation.folder, made=True) as service:
        submit(service, "books", texts("e", 4))
        submit(service, "books", texts("b", 2, edition=3))
        with service.penstock() as penstock:
            assert penstock.collection("books").documents == {"indexed": 144}
    assert installation.doctor(code=0)["clean"]


def test_documents_that_are_sent_again_unchanged_are_known(installation):
    """Their hashes came back with them: nothing is embedded twice."""
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=0)
    with running_service(installation.folder, made=True) as service:
        version = service.http.get("/v1/tenants/default/collections/books").json()["version"]
        submit(service, "books", texts("c", 20))
        assert service.http.get("/v1/tenants/default/collections/books").json()["version"] == version


def test_ids_names_and_history_are_those_there_were(installation):
    def rows() -> list[Any]:
        kept = {
            collections: ("id", "tenant_id", "name"),
            generations: ("id", "tenant_id", "collection_id", "state", "model", "dimensions", "metric", "chunking",
                          "quantization", "shard", "manifest", "version", "writer_epoch", "next_chunk_id",
                          "live_chunks"),
            manifests: ("generation_id", "version", "name", "segment_count", "live_chunks", "size_bytes", "created_at",
                        "followed_at"),
            documents: ("id", "tenant_id", "collection_id", "source", "newest"),
        }  # fmt: skip
        told = []
        with installation.catalog.read() as connection:
            for table, names in kept.items():
                chosen = sa.select(*(table.c[name] for name in names)).order_by(*(table.c[name] for name in names[:2]))
                told += [tuple(row) for row in connection.execute(chosen)]
            indexed = sa.select(versions.c.id, versions.c.document_id, versions.c.number, versions.c.pack,
                                versions.c.pack_offset, versions.c.content_hash, versions.c.metadata_hash,
                                versions.c.chunk_count)  # fmt: skip
            indexed = indexed.where(versions.c.state == "indexed").order_by(versions.c.id)
            told += [tuple(row) for row in connection.execute(indexed)]
        return told

    before = rows()
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=0)
    assert rows() == before


def test_the_epoch_of_the_next_writer_is_above_all_there_were(installation):
    epoch = installation.current().writer_epoch
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=0)
    with installation.catalog.read() as connection:
        assert connection.scalar(sa.select(shards.c.epoch)) >= epoch >= 1


def test_a_catalog_that_is_not_empty_is_left_alone(installation):
    told = installation.doctor_fails("--rebuild-catalog")
    assert "the catalog is not empty" in told
    lose_catalog(installation)
    migrate(installation.catalog)
    create_tenant(installation.catalog, "default", now=1.0)
    installation.doctor("--rebuild-catalog", code=0)
    assert "not empty" in installation.doctor_fails("--rebuild-catalog")


def test_where_there_are_no_objects_it_says_so_and_leaves_no_catalog_behind(tmp_path):
    folder = tmp_path / "mistyped"
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(folder), "--rebuild-catalog"])
    assert result.exit_code == 1
    assert f"{folder / 'objects'} holds no objects" in str(result.exception)
    assert not list(folder.glob("catalog*"))


def test_it_goes_alone(installation):
    assert "leave out" in installation.doctor_fails("--rebuild-catalog", "--repair")
    assert "leave out" in installation.doctor_fails("--rebuild-catalog", "--tenant", "default")


def test_what_was_accepted_and_not_indexed_is_told_by_its_pack(installation):
    with running_service(installation.folder, made=True) as service, service.penstock() as penstock:
        penstock.submit("books", [NewDocument(source="lost", text="accepted, and not indexed yet")])
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=3)
    (finding,) = told["findings"]
    assert (finding["severity"], finding["check"]) == ("warning", "packs")
    assert "lie in 1 pack of 29 bytes" in finding["problem"]
    assert "submit the latest documents again" in finding["advice"]


@pytest.mark.parametrize("harm", ["manifest", "file"])
def test_a_newest_version_that_is_not_whole_is_left_out_for_the_one_before(installation, harm):
    manifest = installation.current()
    with installation.catalog.read() as connection:
        name = connection.scalar(sa.select(generations.c.manifest).where(generations.c.tenant_id == "default"))
    installation.flip(name) if harm == "manifest" else installation.path(manifest.segments[-1].files[0].name).unlink()
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=3)
    assert [one["object"] for one in told["findings"] if one["check"] == "manifests"] == [name]
    assert installation.current().version < manifest.version
    assert installation.doctor(code=0)["clean"]


def test_damage_that_the_rows_are_not_made_of_is_left_to_a_repair(installation):
    manifest = installation.current()
    flat = next(entry for entry in manifest.segments if entry.kind == "flat")
    installation.flip_section(flat.files[0].name, "vectors")
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=0)
    assert installation.current().version == manifest.version
    assert installation.doctor("--repair", code=0)["clean"]


def test_a_version_that_does_not_tell_its_documents_is_left_out(installation):
    manifest = installation.current()
    flat = next(entry for entry in manifest.segments if entry.kind == "flat")
    installation.flip_section(flat.files[0].name, "document_bytes")
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=3)
    assert any("does not tell its documents" in one["problem"] for one in told["findings"])
    assert installation.current().version < manifest.version
    assert installation.doctor("--repair", code=0)["clean"]


def test_of_two_collections_of_one_name_the_one_published_last_comes_back(installation):
    with running_service(installation.folder, made=True) as service:
        with service.penstock() as penstock:
            penstock.delete_collection("books")
            penstock.create_collection("books")
        submit(service, "books", texts("z", 3))
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=3)
    assert told["rebuilt"]["collections"] == 2
    assert any("another collection 'books' was published later" in one["problem"] for one in told["findings"])
    with installation.catalog.read() as connection:
        sources = connection.scalars(sa.select(documents.c.source).where(documents.c.tenant_id == "default")).all()
    assert sorted(sources) == ["z0", "z1", "z2"]


def test_a_fork_that_was_never_finished_takes_no_name_from_a_collection(installation, monkeypatch):
    """Its process died after the manifest was stored, before it could find out that the name is taken."""

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with installation.catalog.read() as connection:
        before = sorted(connection.scalars(sa.select(collections.c.name)).all())
    parent = get_collection(installation.catalog, tenant=TenantId("other"), name="notes")
    monkeypatch.setattr(forks, "_insert", die)
    monkeypatch.setattr(forks, "_refuse_taken", lambda *_, **__: None)  # it was not yet when that was asked
    for name in ("notes", "phantom"):
        with pytest.raises(KeyboardInterrupt):
            fork_collection(
                installation.catalog,
                installation.objects,
                parent=parent,
                reference=CURRENT,
                name=name,
                clock=lambda: 1e12,
            )
    lose_catalog(installation)
    told = installation.doctor("--rebuild-catalog", code=3)
    assert any("perhaps one that was never finished" in one["problem"] for one in told["findings"])
    notes = get_collection(installation.catalog, tenant=TenantId("other"), name="notes")
    assert (notes.id, notes.generation.version) == (parent.id, parent.generation.version)
    with installation.catalog.read() as connection:
        now = sorted(connection.scalars(sa.select(collections.c.name)).all())
    assert now == sorted([*before, "phantom"])  # nobody can tell it from a fork that was finished


def test_a_fork_that_was_published_into_is_a_collection_like_others(installation):
    with running_service(installation.folder, made=True) as service:
        with service.penstock("other") as penstock:
            penstock.fork("notes", "copy")
            penstock.delete_collection("notes")
            penstock.fork("copy", "notes")
        submit(service, "notes", texts("z", 2), tenant="other")
    lose_catalog(installation)
    installation.doctor("--rebuild-catalog", code=3)
    with installation.catalog.read() as connection:
        wanted = sa.select(documents.c.source).join(collections, collections.c.id == documents.c.collection_id)
        sources = connection.scalars(wanted.where(collections.c.name == "notes")).all()
    assert {"z0", "z1"} <= set(sources)


def test_a_rebuild_that_dies_leaves_the_catalog_empty_and_the_next_one_makes_it(installation, monkeypatch):
    lose_catalog(installation)

    def die(_where: str) -> None:
        raise KeyboardInterrupt

    migrate(installation.catalog)
    with monkeypatch.context() as patched:
        patched.setattr(rebuilding, "hit", die)
        with pytest.raises(KeyboardInterrupt):
            rebuilding.rebuild_catalog(installation.catalog, installation.objects, now=1.0)
    with installation.catalog.read() as connection:
        for table in (tenants, collections, documents):
            assert connection.execute(sa.select(table)).all() == []
    installation.doctor("--rebuild-catalog", code=0)
