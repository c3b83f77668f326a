"""Backups: what is restored is what was there, on either server, and whatever dies, older backups stay whole."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.cli.exits import UsageError
from penstock.storage.backups import Place, Progress, Scope, make_backup, making, restore, verify
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.migrations import migrate
from penstock.storage.catalog.tables import collections, metadata, reader_leases, shards, versions
from penstock.storage.errors import Conflict, Damaged, NotFound
from penstock.storage.ids import TenantId
from penstock.storage.inspection.examination import examine
from penstock.storage.objects.local import LocalObjects

from ..examined_installation import Installation, copied, make_installation
from ..mortal_roles import dies

EVERYTHING = Scope()
NOW = 1_767_225_600.0


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "data"
    folder.mkdir()
    make_installation(folder)
    return folder


@pytest.fixture
def here(template, tmp_path):
    made = copied(template, tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path / "backups")


class Target:
    """A new installation, to restore into."""

    def __init__(self, url: str, folder: Path) -> None:
        self.catalog, self.objects = Catalog.open(url), LocalObjects(folder)
        migrate(self.catalog)

    def close(self) -> None:
        self.catalog.dispose()


@pytest.fixture
def either(empty_url, tmp_path):
    """On SQLite, and on PostgreSQL."""
    made = Target(empty_url, tmp_path / "restored")
    yield made
    made.close()


@pytest.fixture
def target(tmp_path):
    made = Target(f"sqlite:///{tmp_path}/restored.sqlite3", tmp_path / "restored")
    yield made
    made.close()


def back_up(here: Installation, place: Place, *, at: float = NOW, **options: Any):
    return make_backup(here.catalog, here.objects, place.folder, **{"scope": EVERYTHING, **options}, now=at)


def rows(catalog: Catalog) -> dict[str, list[tuple[Any, ...]]]:
    found = {}
    with catalog.read() as connection:
        for table in metadata.sorted_tables:
            if table not in (reader_leases, shards):
                ordered = sa.select(table).order_by(*table.primary_key.columns)
                found[table.name] = [tuple(row) for row in connection.execute(ordered)]
    return found


def findings(catalog: Catalog, objects: LocalObjects) -> list[Any]:
    class Unseen:
        def begin(self, total_bytes: int, total_rows: int) -> None: ...
        def advance(self, size_bytes: int) -> None: ...
        def searched(self, rows: int) -> None: ...

    found = examine(catalog, objects, tenant=None, now=time.time(), progress=Unseen(), rows_per_graph=None)
    return [one for one in found.findings if one.severity != "note"]


def test_what_is_restored_into_a_new_installation_is_what_was_there_and_the_doctor_finds_nothing(here, place, either):
    made = back_up(here, place)
    assert made.missing == []
    assert restore(either.catalog, either.objects, place.folder) == made
    assert rows(either.catalog) == rows(here.catalog)
    assert findings(either.catalog, either.objects) == []
    with either.catalog.read() as connection:
        (lease,) = connection.execute(sa.select(shards))
    assert (lease.owner, lease.epoch > 0) == (None, True)  # nobody holds it, and no older writer is let in again


def test_a_backup_of_what_was_restored_is_the_same_again(here, place, either, tmp_path):
    back_up(here, place)
    restore(either.catalog, either.objects, place.folder)
    again = Place(tmp_path / "again")
    make_backup(either.catalog, either.objects, again.folder, scope=EVERYTHING, now=NOW)
    second = Target(f"sqlite:///{tmp_path}/second.sqlite3", tmp_path / "second")
    restore(second.catalog, second.objects, again.folder)
    assert rows(second.catalog) == rows(here.catalog)
    second.close()


def test_what_was_copied_once_is_not_copied_again(here, place):
    first, second = Progress(), Progress()
    made = back_up(here, place, progress=first)
    again = back_up(here, place, progress=second, at=NOW + 1)
    assert (first.copied, first.kept) == (made.object_count, 0)
    assert (second.copied, second.kept) == (0, again.object_count)
    assert place.copies(made) == place.copies(again)


def test_a_collection_alone_is_restored_without_a_word_of_others(here, place, either):
    with here.catalog.read() as connection:
        wanted = sa.select(collections.c.id).where(collections.c.name == "notes")
        notes = connection.scalars(wanted).one()
    made = back_up(here, place, scope=Scope(TenantId("other"), notes))
    restore(either.catalog, either.objects, place.folder)
    kept = rows(either.catalog)
    assert [row[2] for row in kept["collections"]] == ["notes"]
    assert {row[1] for row in kept["versions"]} == {"other"}
    assert all(name.startswith("tenants/other/") for name in place.copies(made))
    assert findings(either.catalog, either.objects) == []


def test_beyond_so_many_the_oldest_go_with_the_objects_that_only_they_need(here, place, target):
    first_copies = set(place.copies(back_up(here, place, at=NOW)))
    with here.catalog.write() as connection:  # nothing leads to the other tenant's packs any more
        connection.execute(sa.delete(versions).where(versions.c.tenant_id == "other"))
    back_up(here, place, at=NOW + 1)
    third = back_up(here, place, at=NOW + 2, keep=2)
    assert [one.created_at for one in place.list()] == [NOW + 2, NOW + 1]
    left = {info.name for info in place.objects.list("")}
    assert left == set(place.copies(third))
    assert any(name.startswith("tenants/other/packs/") for name in first_copies - left)
    restore(target.catalog, target.objects, place.folder, backup_id=third.id)


def test_an_object_that_is_missing_or_damaged_is_told_and_no_older_backup_goes_for_it(here, place):
    back_up(here, place)
    entry = here.current().segments[0].files[0]
    pack = next(iter(here.objects.list("tenants/other/packs/"))).name
    shutil.rmtree(place.folder / "objects")  # so that nothing is there from before
    here.flip(entry.name)
    here.objects.delete(pack)
    made = back_up(here, place, at=NOW + 1, keep=1)
    assert set(made.missing) == {entry.name, pack}
    assert len(place.list()) == 2


def test_what_is_collected_while_a_backup_is_made_is_not_in_it(here, place, target, monkeypatch):
    """A document is accepted after the first pass, in the rows, and gone before its bytes are copied."""
    looked, looks = making._Making.look, []
    row: dict[str, Any] = {}
    with here.catalog.read() as connection:
        row |= connection.execute(sa.select(versions).limit(1)).mappings().one()
    name = "tenants/default/packs/" + "0" * 64

    def look(self, path):
        looks.append(path)
        if len(looks) == 2:
            fresh = {**row, "id": "ver_fresh", "number": 999, "state": "failed", "pack": name}
            with here.catalog.write() as connection:
                connection.execute(sa.insert(versions).values(fresh))
        found = looked(self, path)
        if len(looks) == 2:
            assert name in found[0].objects
            with here.catalog.write() as connection:
                connection.execute(sa.delete(versions).where(versions.c.id == "ver_fresh"))
        return found

    monkeypatch.setattr(making._Making, "look", look)
    made = back_up(here, place)
    assert (made.missing, len(looks)) == ([], 3)
    restore(target.catalog, target.objects, place.folder)
    assert rows(target.catalog) == rows(here.catalog)


class Killed(BaseException):
    pass


def test_killed_anywhere_it_leaves_the_backups_that_were_there_and_the_next_one_is_whole(here, place, target):
    first = back_up(here, place)
    count = 0

    def counted() -> None:
        nonlocal count
        count += 1

    back_up(here, Place(place.folder.with_name("counted")), progress=Progress(go_on=counted))
    assert count > 20
    for last in range(1, count, max(1, count // 12)):
        shutil.rmtree(place.folder / "objects", ignore_errors=True)  # so that all is to be done again
        left = last

        def die() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                raise Killed

        with pytest.raises(Killed):
            back_up(here, place, progress=Progress(go_on=die), at=NOW + last)
        assert place.list() == [first]
    made = back_up(here, place, at=NOW + 1_000)
    assert [path.name for path in (place.folder / "backups").iterdir() if path.name.startswith(".")] == []
    assert restore(target.catalog, target.objects, place.folder) == made
    assert rows(target.catalog) == rows(here.catalog)


OF_BACKUPS = {f"backup.{step}" for step in ("copied", "written", "synced", "named", "hidden", "object_deleted")}


def test_a_backup_that_is_killed_is_there_whole_or_not_at_all_and_the_next_one_is_made(here, place, target, tmp_path):
    """With ``keep``: a backup is made, the one before it goes, and an object with it that nobody needs any more."""
    old = back_up(here, place)
    lost = min(place.copies(old))
    place.objects.delete(lost)  # is copied again
    place.objects.put("tenants/default/packs/" + "3" * 64, [b"of a backup that was given up"])
    shutil.copytree(place.folder, tmp_path / "before")
    here.catalog.dispose()

    def story() -> None:
        back_up(here, place, at=NOW + 1, keep=1)

    assert not dies(story, record=tmp_path / "record")
    passed = (tmp_path / "record").read_text().splitlines()
    assert {*passed} >= OF_BACKUPS
    for name in dict.fromkeys(passed):
        shutil.rmtree(place.folder)
        shutil.copytree(tmp_path / "before", place.folder)
        assert dies(story, at=f"{name}:{passed.count(name)}"), name
        named = place.list()
        assert named[-1] == old or [one.created_at for one in named] == [NOW + 1], name
        for backup in named:
            place.check(backup)
            missing = place.objects.missing(place.copies(backup))
            assert missing == [] or (backup, missing) == (old, [lost]), name
        made = back_up(here, place, at=NOW + 2, keep=1)
        assert (made.missing, place.list(), verify(place.folder)) == ([], [made], []), name
        assert [path.name for path in (place.folder / "backups").iterdir()] == [made.id], name
        assert {info.name for info in place.objects.list("")} == {*place.copies(made)}, name
    restore(target.catalog, target.objects, place.folder)
    assert rows(target.catalog) == rows(here.catalog)


def test_the_commands_back_up_and_restore_and_say_what_they_did(here, place, tmp_path):
    def said(*words: str) -> Any:
        result = CliRunner().invoke(app, [*words, "--json"])
        assert result.exit_code == 0, (result.output, result.exception)
        return json.loads(result.stdout)

    made = said("backup", str(place.folder), "--data-dir", str(here.folder))
    part = said("backup", str(place.folder), "--data-dir", str(here.folder), "-c", "books", "--keep", "1")
    assert [one["id"] for one in said("backup", str(place.folder), "--list")] == [part["id"], made["id"]]
    assert (made["missing"], part["copied"]) == ([], 0)
    for words in (["--list"], ["--verify"]):
        nowhere = CliRunner().invoke(app, ["backup", str(tmp_path / "nowhere"), *words])
        assert isinstance(nowhere.exception, UsageError), "that nothing is there is no good news"
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(NotFound, match="nothing was verified"):
        verify(tmp_path / "empty")
    restored = said("restore", str(place.folder), "--data-dir", str(tmp_path / "new"))
    assert restored["id"] == made["id"]  # not the newer one, which is of one collection only
    new = Installation(tmp_path / "new")
    assert new.doctor(code=0)["clean"]
    assert rows(new.catalog) == rows(here.catalog)
    new.close()


def test_a_copy_that_rotted_is_found_and_the_next_backup_mends_the_older_ones(here, place, target):
    made = back_up(here, place)
    assert verify(place.folder) == []
    names = sorted(place.copies(made))
    path = place.folder / "objects" / names[0]
    path.write_bytes(b"x" * path.stat().st_size)
    place.objects.delete(names[1])
    assert verify(place.folder) == names[:2]
    back_up(here, place, at=NOW + 1)
    assert verify(place.folder) == []
    restore(target.catalog, target.objects, place.folder, backup_id=made.id)
    assert rows(target.catalog) == rows(here.catalog)


@pytest.mark.parametrize("name", ["backup.json", "objects.jsonl.gz"])
def test_an_older_backup_that_cannot_be_read_keeps_nobody_from_making_another(here, place, name):
    first = back_up(here, place)
    (place.path(first) / name).write_bytes(b"rotten")
    with pytest.raises(Damaged):  # nothing is removed: nobody knows what the first one needs
        back_up(here, place, at=NOW + 1, keep=2)
    made = back_up(here, place, at=NOW + 2)
    assert made.missing == []
    assert len(list((place.folder / "backups").iterdir())) == 3


def test_only_one_backup_is_made_in_a_folder_at_a_time(here, place):
    with place.held(), pytest.raises(Conflict, match="just being made"):
        back_up(here, place)
    assert back_up(here, place).missing == []


def test_nothing_is_restored_over_an_installation_that_is_in_use(here, place):
    back_up(here, place)
    before = rows(here.catalog)
    with pytest.raises(Conflict, match="new installation"):
        restore(here.catalog, here.objects, place.folder)
    assert rows(here.catalog) == before


def test_nothing_is_restored_beside_objects_that_a_collector_would_then_delete(here, place, target):
    made = back_up(here, place)
    name = "tenants/default/packs/" + "1" * 64
    target.objects.put(name, [b"of somebody else"])
    with pytest.raises(Conflict, match="empty one"):
        restore(target.catalog, target.objects, place.folder)
    target.objects.delete(name)
    target.objects.put(max(place.copies(made)), [b"of another installation"])
    with pytest.raises(Conflict, match="differs"):
        restore(target.catalog, target.objects, place.folder)
    assert all(not found for found in rows(target.catalog).values())


@pytest.mark.parametrize("part", ["table", "object", "list"])
def test_a_damaged_backup_is_refused_before_the_catalog_has_a_row(here, place, target, part):
    made = back_up(here, place)
    path = {
        "table": place.path(made) / "tables" / "versions.jsonl.gz",
        "object": place.folder / "objects" / max(place.copies(made)),
        "list": place.path(made) / "objects.jsonl.gz",
    }[part]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(Damaged):
        restore(target.catalog, target.objects, place.folder)
    assert all(not found for found in rows(target.catalog).values())


def test_a_restore_that_was_interrupted_is_repeated_and_a_backup_that_is_not_there_is_told(here, place, target):
    made = back_up(here, place)
    done = 0

    def die(_size_bytes: int) -> None:
        nonlocal done
        done += 1
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        restore(target.catalog, target.objects, place.folder, on_object=die)
    with pytest.raises(NotFound, match=made.id):
        restore(target.catalog, target.objects, place.folder, backup_id="20200101T000000Z-abcdef")
    restore(target.catalog, target.objects, place.folder)
    assert rows(target.catalog) == rows(here.catalog)
