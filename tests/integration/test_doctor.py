"""`penstock doctor` on an installation that was damaged in one place: it names the place, and nothing else."""

import json
import os
import re
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import documents, generations, manifests, metadata, tags, versions
from penstock.storage.inspection.examination import examine
from penstock.storage.inspection.orphans import LEFT_ALONE_S
from penstock.storage.segments.manifests import SegmentEntry, name_of, read_manifest

from ..examined_installation import Installation


def found(installation: Installation, *words: str) -> list[tuple[str, str, str]]:
    """What is found wrong: severity, check and object."""
    told = installation.doctor(*words, code=3)
    assert told["clean"] is False
    return [(one["severity"], one["check"], one["object"]) for one in told["findings"] if one["severity"] != "note"]


def segment(installation: Installation, kind: str) -> SegmentEntry:
    return next(entry for entry in installation.current().segments if entry.kind == kind)


def test_an_installation_that_is_right_is_clean_and_everything_was_looked_at(installation):
    told = installation.doctor(code=0)
    assert told["clean"] is True
    assert told["findings"] == []
    files = {file.name for tenant in ("default", "other") for entry in installation.current(tenant).segments
             for file in entry.all_files}  # fmt: skip
    checked = told["checked"]
    assert checked["tenants"] == checked["generations"] == 2
    assert checked["versions"] > 4
    assert checked["files"] > len(files)
    assert checked["documents"] == 145
    assert checked["rows_searched"] == 110
    on_disk = sum(path.stat().st_size for path in installation.folder.rglob("objects/tenants/**/*") if path.is_file())
    assert on_disk * 0.8 < checked["size_bytes"] < on_disk


def test_it_changes_nothing(installation):
    def everything() -> dict[str, tuple[int, int]]:
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns)
                for path in (installation.folder / "objects").rglob("*") if path.is_file()}  # fmt: skip

    def rows() -> list[object]:
        with installation.catalog.read() as connection:
            return [connection.execute(sa.select(table)).all() for table in (generations, manifests, versions)]

    before, stated = everything(), rows()
    installation.flip(segment(installation, "graph").files[1].name)
    damaged = everything()
    installation.doctor(code=3)
    assert (everything(), rows()) == (damaged, stated)
    assert before.keys() == damaged.keys()


@pytest.mark.parametrize("kind", ["flat", "graph"])
@pytest.mark.parametrize("harm", ["flipped", "truncated", "missing", "swapped", "longer"])
@pytest.mark.parametrize("which", ["segment", "hnsw", "deletes"])
def test_a_damaged_file_of_the_current_version_is_named(installation, rng, kind, harm, which):
    entry = segment(installation, kind)
    named = next((file for file in entry.all_files if file.name.endswith(which)), None)
    if named is None:
        pytest.skip(f"a {kind} segment has no such file here")
    data = installation.path(named.name).read_bytes()
    match harm:
        case "flipped":
            installation.flip(named.name, at=rng.randrange(len(data)))
        case "truncated":
            installation.rewrite(named.name, data[: rng.randrange(len(data))])
        case "longer":
            installation.rewrite(named.name, data + b"\0")
        case "swapped":
            installation.rewrite(named.name, bytes(reversed(data)))
        case "missing":
            installation.path(named.name).unlink()
    wrong = found(installation, "--tenant", "default")
    files = [one for one in wrong if one[1] == "files"]
    assert files == [("error", "files", named.name)]
    assert {check for _, check, _ in wrong} <= {"files", "contents"}


def test_what_is_said_names_the_segment_the_collection_and_what_to_do(installation):
    entry = segment(installation, "graph")
    installation.path(entry.files[1].name).unlink()
    finding = next(one for one in installation.doctor(code=3)["findings"] if one["check"] == "files")
    assert finding["problem"].startswith(f"it is missing: graph segment {entry.id} with 110 live chunks of the current")
    assert "'books'" in finding["problem"]
    assert "--repair" in finding["advice"]
    shown = CliRunner().invoke(app, ["doctor", "--data-dir", str(installation.folder)])
    assert shown.exit_code == 3
    assert entry.files[1].name in shown.output.replace("\n", "")
    assert "error files:" in shown.output


def test_documents_in_damaged_files_are_counted_as_lost(installation):
    installation.flip(segment(installation, "flat").files[0].name)
    told = installation.doctor(code=3)
    lost = next(one for one in told["findings"] if one["check"] == "contents")
    assert lost["problem"].startswith("the ledger indexes 30 documents of collection 'books'")
    assert "damaged files above" in lost["problem"]


def test_a_damaged_file_of_a_past_version_is_a_warning_and_a_tag_on_it_is_named(installation):
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        oldest = connection.execute(sa.select(manifests).where(mine).order_by(manifests.c.version)).first()
    name = read_manifest(installation.objects, oldest.name).segments[0].files[0].name
    installation.flip(name)
    assert found(installation) == [("warning", "files", name)]
    row = {"name": "before", "tenant_id": "default", "created_at": 1.0}
    row |= {"generation_id": oldest.generation_id, "version": oldest.version}
    installation.execute(sa.insert(tags).values(row))
    told = installation.doctor(code=3)["findings"][0]
    assert "tag 'before'" in told["advice"]


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_a_damaged_manifest_is_named_whether_it_is_current_or_past(installation, harm):
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        names = connection.scalars(sa.select(manifests.c.name).where(mine).order_by(manifests.c.version.desc())).all()
    for name, severity in ((names[1], "warning"), (names[0], "error")):
        installation.flip(name) if harm == "flipped" else installation.path(name).unlink()
        assert (severity, "manifests", name) in found(installation)


def test_a_manifest_under_the_name_of_another_is_named(installation):
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        newest, before = connection.scalars(
            sa.select(manifests.c.name).where(mine).order_by(manifests.c.version.desc()).limit(2)
        ).all()
    installation.rewrite(newest, installation.path(before).read_bytes())
    assert ("error", "manifests", newest) in found(installation)


@pytest.mark.parametrize(
    ("change", "severity", "says"),
    [
        ({"live_chunks": 7}, "warning", "140 live chunks where the catalog counts 7"),
        ({"next_chunk_id": 5}, "error", "differs from the catalog in next_chunk_id"),
        ({"model": "other"}, "error", "differs from the catalog in model"),
    ],
)
def test_facts_of_the_catalog_that_are_not_those_of_the_manifest_are_told(installation, change, severity, says):
    installation.execute(sa.update(generations).where(generations.c.tenant_id == "default").values(change))
    finding = installation.doctor(code=3)["findings"][0]
    assert (finding["severity"], finding["check"]) == (severity, "manifests")
    assert says in finding["problem"]


def test_a_version_whose_row_says_other_numbers_is_told(installation):
    installation.execute(sa.update(manifests).where(manifests.c.tenant_id == "other").values(size_bytes=1))
    assert found(installation) == [("warning", "manifests", _pointer(installation, "other"))]


def test_a_pointer_without_a_row_is_told(installation):
    name = _pointer(installation, "other")
    installation.execute(sa.delete(manifests).where(manifests.c.name == name))
    assert found(installation) == [("error", "manifests", name)]


def test_documents_that_the_ledger_indexes_and_the_index_does_not_hold_are_lost(installation):
    installation.execute(sa.update(versions).where(*_indexed("c3")).values(chunk_count=2))
    finding = installation.doctor(code=3)["findings"][0]
    assert (finding["severity"], finding["check"]) == ("error", "contents")
    assert "1 document of collection 'books'" in finding["problem"]
    assert finding["problem"].endswith("though no file is damaged: c3")


def test_chunks_that_the_ledger_does_not_index_are_stray(installation):
    installation.execute(sa.update(versions).where(*_indexed("c3")).values(state="superseded"))
    finding = installation.doctor(code=3)["findings"][0]
    assert (finding["severity"], finding["check"]) == ("error", "contents")
    assert finding["problem"].startswith("1 live chunk of 1 document in collection 'books' must not be found")


@pytest.mark.parametrize("harm", ["flipped", "missing", "truncated"])
def test_a_pack_that_documents_may_need_is_named(installation, harm):
    with installation.catalog.read() as connection:
        name = connection.scalars(sa.select(versions.c.pack).where(*_indexed("c3"))).one()
    match harm:
        case "flipped":
            installation.flip(name)
        case "missing":
            installation.path(name).unlink()
        case "truncated":
            installation.rewrite(name, installation.path(name).read_bytes()[:-1])
    assert found(installation) == [("warning", "packs", name)]
    installation.execute(sa.update(versions).where(*_indexed("c3")).values(state="queued"))
    assert ("error", "packs", name) in found(installation)


def test_a_pack_that_only_versions_of_the_past_name_is_not_missed(installation):
    with installation.catalog.read() as connection:
        past = versions.c.state == "superseded"
        names = set(connection.scalars(sa.select(versions.c.pack).where(past)))
        names -= set(connection.scalars(sa.select(versions.c.pack).where(~past)))
    assert not names, "the first pack of the books is needed by those that were not replaced"
    installation.execute(sa.delete(versions).where(*_indexed("n1")))
    installation.execute(sa.update(versions).where(versions.c.tenant_id == "other").values(state="failed"))
    installation.path(next(iter(_packs(installation, "other")))).unlink()
    assert {check for _, check, _ in found(installation)} == {"contents"}


def test_old_objects_that_nobody_names_are_a_note_and_young_ones_are_not_told(installation):
    generation = installation.current().generation_id
    orphans = [
        f"tenants/default/generations/{generation}/segments/seg_lost.segment",
        "tenants/default/packs/" + "0" * 64,
        "tenants/default/staging/batch_gone/chunks",
    ]
    for name in orphans:
        installation.objects.put(name, [b"lost"])
    assert installation.doctor(code=0)["findings"] == []
    old = time.time() - LEFT_ALONE_S - 3_600
    for name in orphans:
        os.utime(installation.path(name), (old, old))
    notes = installation.doctor(code=0)["findings"]
    assert [(one["severity"], one["check"], one["object"]) for one in notes] == [
        ("note", "orphans", name) for name in orphans
    ]
    assert "3 hours old" in notes[0]["problem"]


def test_files_of_a_tenant_that_the_catalog_does_not_know_are_a_warning(installation):
    installation.objects.put("tenants/stranger/packs/" + "0" * 64, [b"what"])
    assert found(installation) == [("warning", "orphans", "tenants/stranger/")]
    installation.doctor("--tenant", "default", code=0)


def test_what_dead_processes_left_in_scratch_is_a_note(installation):
    left = installation.objects.scratch() / "graph_dead.hnsw"
    left.write_bytes(b"half a graph")
    assert installation.doctor(code=0)["findings"] == []
    old = time.time() - LEFT_ALONE_S - 1
    os.utime(left, (old, old))
    (note,) = installation.doctor(code=0)["findings"]
    assert (note["severity"], note["check"], note["object"]) == ("note", "scratch", str(left))


def test_only_the_tenant_that_was_asked_for_is_looked_at(installation):
    installation.flip(segment(installation, "graph").files[0].name)
    assert installation.doctor("--tenant", "other", code=0)["checked"]["tenants"] == 1
    installation.doctor("--tenant", "default", code=3)
    missing = CliRunner().invoke(app, ["doctor", "--data-dir", str(installation.folder), "--tenant", "nobody"])
    assert missing.exit_code == 1


@pytest.mark.parametrize("words", [(), ("--repair",), ("--rebuild-catalog",)])
@pytest.mark.parametrize("damage", ["header", "pages"])
def test_a_catalog_that_is_damaged_itself_is_told_with_the_way_out(installation, damage, words):
    installation.execute(sa.text("SELECT 1"))
    installation.close()
    path = installation.folder / "catalog.sqlite3"
    for log in installation.folder.glob("catalog.sqlite3-*"):
        log.unlink()
    data = bytearray(path.read_bytes())
    first = 0 if damage == "header" else 4_096
    data[first : first + 200_000] = b"\xa5" * len(data[first : first + 200_000])
    path.write_bytes(bytes(data))
    told = installation.doctor_fails(*words)
    assert re.search("the catalog at .*catalog.sqlite3 cannot be read: ", told)
    assert "--rebuild-catalog" in told


@pytest.mark.parametrize("begun", [False, True])
def test_a_catalog_that_was_begun_anew_over_objects_is_told_with_the_way_out(installation, begun):
    """The file was lost and made again, empty or with its tables: what it does not know is not called orphaned."""
    installation.close()
    path = installation.folder / "catalog.sqlite3"
    path.write_bytes(b"")
    for log in installation.folder.glob("catalog.sqlite3-*"):
        log.unlink()
    if begun:
        migrate(installation.catalog)
        installation.close()
    told = installation.doctor_fails()
    assert "the object store holds versions of collections that it does not know" in told
    assert "--rebuild-catalog" in told
    installation.doctor("--rebuild-catalog", code=0)
    assert installation.doctor(code=0)["clean"]


def test_where_there_is_no_catalog_it_says_so_and_makes_none(tmp_path):
    result = CliRunner().invoke(app, ["doctor", "--data-dir", str(tmp_path / "empty")])
    assert result.exit_code == 1
    assert "there is no catalog" in str(result.exception)
    assert not (tmp_path / "empty" / "catalog.sqlite3").exists()


def test_an_object_store_that_is_not_there_is_told_apart_from_one_that_lost_everything(installation):
    """A disk that is not mounted must not be taken for damage: a repair would give everything up."""
    objects = installation.folder / "objects"
    objects.rename(installation.folder / "unmounted")
    objects.mkdir()
    for words in ((), ("--repair",)):
        told = installation.doctor_fails(*words)
        assert "none of the" in told
        assert "is it the right one, and mounted?" in told
    objects.rmdir()
    (installation.folder / "unmounted").rename(objects)
    assert installation.doctor(code=0)["clean"]


@pytest.mark.parametrize("words", [(), ("--repair",), ("--rebuild-catalog",)])
def test_what_a_newer_program_wrote_is_not_taken_for_damage(installation, words):
    """Whoever looks with an older program must not give up what only a newer one can read."""
    manifest = installation.current()
    newer = replace(manifest, flags=[*manifest.flags, "of-tomorrow"])
    data = newer.to_json()
    installation.objects.put(name_of(newer, data), [data])
    values = {"manifest": name_of(newer, data)}
    installation.execute(sa.update(generations).where(generations.c.tenant_id == "default").values(values))
    if words == ("--rebuild-catalog",):
        for table in reversed(metadata.sorted_tables):
            installation.execute(sa.delete(table))
    assert "of-tomorrow, which this program does not know: upgrade it" in installation.doctor_fails(*words)


def test_what_is_collected_while_it_looks_is_no_finding(installation):
    """A version that retention drops, and whose files go, between the look at the catalog and the look at the files."""
    with installation.catalog.read() as connection:
        mine = manifests.c.tenant_id == "default"
        oldest = connection.execute(sa.select(manifests).where(mine).order_by(manifests.c.version)).first()

    class Collecting:
        def begin(self, _total_bytes: int, _total_rows: int) -> None:
            installation.execute(sa.delete(manifests).where(manifests.c.name == oldest.name))
            kept = {file.name for entry in installation.current().segments for file in entry.all_files}
            for path in installation.folder.rglob("objects/tenants/default/**/*.segment"):
                name = path.relative_to(installation.folder / "objects").as_posix()
                if name not in kept and name in installation.path(oldest.name).read_text():
                    path.unlink()

        def advance(self, size_bytes: int) -> None: ...
        def searched(self, rows: int) -> None: ...

    with installation.catalog.read() as connection:
        others = sa.select(manifests.c.name).where(mine, manifests.c.name != oldest.name)
        for name in connection.scalars(others).all():
            if name != _pointer(installation, "default"):
                installation.execute(sa.delete(manifests).where(manifests.c.name == name))
    result = examine(installation.catalog, installation.objects, now=time.time(), progress=Collecting())
    assert json.dumps([one.described() for one in result.findings if one.check == "files"]) == "[]"


def test_more_rows_can_be_looked_for(installation):
    assert installation.doctor("--rows", "5", code=0)["checked"]["rows_searched"] == 5
    assert installation.doctor("--rows", "0", code=0)["checked"]["rows_searched"] == 110


def _pointer(installation: Installation, tenant: str) -> str:
    with installation.catalog.read() as connection:
        return connection.scalars(
            sa.select(generations.c.manifest).where(generations.c.tenant_id == tenant)
        ).one()  # fmt: skip


def _packs(installation: Installation, tenant: str) -> set[str]:
    with installation.catalog.read() as connection:
        return set(connection.scalars(sa.select(versions.c.pack).where(versions.c.tenant_id == tenant)))


def _indexed(source: str) -> tuple[sa.ColumnElement[bool], ...]:
    mine = sa.select(documents.c.id).where(documents.c.source == source).scalar_subquery()
    return versions.c.document_id == mine, versions.c.state == "indexed"
