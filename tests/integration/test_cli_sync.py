"""`penstock sync`: afterwards the collection equals the folder, and nothing outside of it was touched."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from penstock.api.cli import sync as sync_command
from penstock.api.cli.application import app
from penstock.api.cli.exits import UsageError
from penstock.client import NewDocument, Unreachable
from penstock.client.documents import Documents
from penstock.storage.folders import FEW

from ..http_service import KEY, running_service


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with running_service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "notes"
    (made / "deep").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "deep/c.txt", "deep/d.txt"):
        (made / name).write_text(f"Note {name}.")
    return made


@pytest.fixture
def environment(service, tmp_path):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
    return clean | {"PENSTOCK_URL": service.url, "PENSTOCK_API_KEY": KEY, "PENSTOCK_DATA_DIR": str(tmp_path / "none")}


@pytest.fixture
def collection(service):
    with service.penstock() as penstock:
        penstock.create_collection("kept")
        yield "kept"
        penstock.delete_collection("kept")


@pytest.fixture
def sync(environment, collection, monkeypatch, folder):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    def run(*words: str, path: Path = folder, code: int = 0, **options):
        words = ("sync", str(path), "-c", collection, "--no-wait", *words)
        result = CliRunner().invoke(app, list(words), **options)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def sources(service, collection):
    def listed() -> set[str]:
        service.index()
        with service.penstock() as penstock:
            return {one.source for one in penstock.all_documents(collection)}

    return listed


def submit(service, *names: str) -> None:
    with service.penstock() as penstock:
        penstock.submit("kept", [NewDocument(source=name, text=f"Text of {name}.") for name in names])


ALL = {"notes/a.txt", "notes/b.txt", "notes/deep/c.txt", "notes/deep/d.txt"}


def test_files_are_added_replaced_and_deleted_until_the_collection_equals_the_folder(sync, sources, folder):
    assert "4 new" in sync().stdout
    assert sources() == ALL
    (folder / "a.txt").write_text("Something else.")
    (folder / "b.txt").unlink()
    (folder / "new.txt").write_text("New.")

    told = json.loads(sync("--json").stdout)

    assert (told["new"], told["replaced"], told["unchanged"], told["deleted"]) == (1, 1, 2, 1)
    assert sources() == (ALL - {"notes/b.txt"}) | {"notes/new.txt"}
    assert "4 unchanged" in sync().stdout
    assert json.loads(sync("--json").stdout)["jobs"] == []


def test_a_dry_run_prints_the_plan_and_changes_nothing(sync, sources, folder, service):
    sync()
    before = sources()
    (folder / "a.txt").write_text("Something else.")
    (folder / "b.txt").unlink()
    (folder / "new.txt").write_text("New.")

    plan = json.loads(sync("--dry-run", "--json").stdout)
    shown = sync("--dry-run").stdout

    assert (plan["add"], plan["update"], plan["delete"]) == (["notes/new.txt"], ["notes/a.txt"], ["notes/b.txt"])
    assert (plan["unchanged"], plan["asks"]) == (2, False)
    assert "1 to add, 1 to update, 1 to delete, 2 unchanged; nothing was changed" in shown
    assert sources() == before
    with service.penstock() as penstock:
        assert {one.version for one in penstock.documents("kept").data} == {1}


def test_a_dry_run_makes_no_collection(sync, service, collection):
    plan = json.loads(sync("--dry-run", "--json", "-c", "absent").stdout)
    assert len(plan["add"]) == 4
    with service.penstock() as penstock:
        assert "absent" not in [one.name for one in penstock.collections()]


def test_only_documents_below_its_own_prefix_are_deleted(sync, sources, service, folder):
    others = {"notes", "notes.txt", "notesb/x", "NOTES/x", "other/notes/x", "Notes/a.txt"}
    submit(service, *others, "notes/gone.txt")

    sync()

    assert sources() == others | ALL
    sync("--prefix", "mine/notes", "--yes")
    assert sources() == others | ALL | {f"mine/{source}" for source in ALL}


def test_an_empty_prefix_is_the_whole_collection(sync, sources, service):
    submit(service, "x", "y/z")
    sync("--prefix", "")
    assert sources() == {source.removeprefix("notes/") for source in ALL}


def test_files_and_folders_that_cannot_be_read_never_cause_a_deletion(sync, sources, folder, monkeypatch):
    sync()
    (folder / "a.txt").unlink()
    (folder / "a.txt").symlink_to(folder / "nowhere")
    iterdir = Path.iterdir

    def failing(path):
        if path.name == "deep":
            raise PermissionError(13, "Permission denied")
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", failing)
    (folder / "b.txt").unlink()

    told = json.loads(sync("--json", code=3).stdout)

    assert told["deleted"] == 1
    assert sorted(told["spared"]) == ["notes/a.txt", "notes/deep/c.txt", "notes/deep/d.txt"]
    assert sources() == ALL - {"notes/b.txt"}
    assert "3 spared, whose files cannot be read" in " ".join(sync(code=3).stdout.split())


def test_a_folder_that_cannot_be_read_at_all_changes_nothing(sync, sources, folder, monkeypatch):
    sync()
    monkeypatch.setattr(Path, "iterdir", lambda _: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(UsageError, match="nothing was changed"):
        sync("--yes")
    assert sources() == ALL


@pytest.mark.parametrize("path", ["absent", "a.txt"])
def test_what_is_no_folder_is_wrong_usage(sync, sources, folder, path):
    with pytest.raises(UsageError):
        sync(path=folder / path)
    assert sources() == set()


@pytest.mark.parametrize(("path", "said"), [("/", "/ has no name"), ("", "the path is empty: write .")])
def test_a_folder_without_a_name_is_wrong_usage_and_changes_nothing(sync, sources, service, path, said):
    submit(service, "etc/passwd")
    with pytest.raises(UsageError, match=said):
        sync("--yes", path=path)
    assert sources() == {"etc/passwd"}


def test_many_deletions_need_somebodys_word(sync, sources, folder, service):
    many = {f"notes/{number}.txt" for number in range(FEW + 1)}
    submit(service, *many)

    for words in ((), ("--json",)):
        with pytest.raises(UsageError, match=f"delete {FEW + 1} of {FEW + 1} documents.*nothing was changed"):
            sync(*words)
    assert sources() == many
    assert json.loads(sync("--dry-run", "--json").stdout)["asks"] is True

    sync("--yes")
    assert sources() == ALL


def test_an_emptied_folder_deletes_nothing_unless_told_so(sync, sources, folder, service):
    sync()
    for path in sorted(folder.rglob("*.txt")):
        path.unlink()

    with pytest.raises(UsageError, match=r"delete 4 of 4 documents.*--yes"):
        sync()
    assert sources() == ALL
    assert "4 deleted" in sync("--yes").stdout
    assert "no files, no documents" in sync().stdout, "there is nothing to ask about"


def test_a_new_link_to_a_folder_deletes_no_document_of_the_folder(sync, sources, folder):
    sync()
    (folder / "aaa").symlink_to(folder / "deep")
    assert json.loads(sync("--json").stdout)["deleted"] == 0
    assert sources() == ALL


def test_a_sync_that_ends_half_way_is_completed_by_the_next(sync, sources, folder, monkeypatch):
    sync()
    (folder / "a.txt").unlink()
    (folder / "new.txt").write_text("New.")
    with monkeypatch.context() as broken:
        broken.setattr(Documents, "delete_documents", lambda *_, **__: (_ for _ in ()).throw(Unreachable("gone")))
        with pytest.raises(Exception, match="gone"):
            sync()
    assert sources() == ALL | {"notes/new.txt"}, "what is new is sent before anything is deleted"

    sync()
    assert sources() == (ALL | {"notes/new.txt"}) - {"notes/a.txt"}


@pytest.mark.parametrize("kill_after_s", [0.3, 0.8, 1.3])
def test_a_sync_that_is_killed_anywhere_is_completed_by_the_next(
    sync, sources, folder, environment, service, kill_after_s
):
    submit(service, *(f"notes/old-{number}.txt" for number in range(8)))
    for number in range(200):
        (folder / f"{number:03}.txt").write_text(f"Note {number}.")
    words = [sys.executable, "-m", "penstock.api.cli", "sync", str(folder), "-c", "kept"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        time.sleep(kill_after_s)
        running.send_signal(signal.SIGKILL)

    sync()

    assert sources() == ALL | {f"notes/{number:03}.txt" for number in range(200)}


def test_what_changed_between_the_comparison_and_the_delete_is_left_alone(sync, sources, folder, service, monkeypatch):
    """Somebody else submits one of the documents anew, and the file of another one comes back."""
    sync()
    for name in ("a.txt", "b.txt", "deep/c.txt"):
        (folder / name).unlink()
    delete, asked = Documents.delete_documents, []

    def late(client, collection, **selection):
        submit(service, "notes/a.txt")
        asked.append(selection)
        return delete(client, collection, **selection)

    def returned(client, *words, **options):
        (folder / "deep" / "c.txt").write_text("Back again.")
        return ensured(client, *words, **options)

    ensured = sync_command.ensure_collection
    monkeypatch.setattr(Documents, "delete_documents", late)
    monkeypatch.setattr(sync_command, "ensure_collection", returned)
    told = json.loads(sync("--yes", "--json").stdout)

    assert (told["deleted"], told["left"]) == (1, 2)
    assert [one["sources"] for one in asked] == [["notes/a.txt", "notes/b.txt"]]
    assert sources() == ALL - {"notes/b.txt"}


def test_a_document_that_is_on_its_way_out_is_not_deleted_twice_and_comes_back_with_its_file(sync, sources, service):
    sync()
    sources()
    with service.penstock() as penstock:
        penstock.delete_documents("kept", sources=["notes/a.txt"])
        assert json.loads(sync("--json").stdout)["new"] == 1
    assert sources() == ALL
