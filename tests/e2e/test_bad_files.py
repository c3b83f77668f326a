"""A folder with one good and several bad files: the good one is searchable, each bad one has its own reason."""

import json
import os
from collections.abc import Iterator

import pytest
from installation import Installation


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    started = Installation(tmp_path_factory.mktemp("data"), settings={"EMBEDDING__MODEL": "hash"})
    started.start()
    yield started
    started.stop()


def make_folder(folder):
    folder.mkdir()
    (folder / "good.md").write_text(
        "# Penstocks\n\nA penstock is a sluice that controls the flow of water to a turbine.\n"
    )
    (folder / "empty.txt").write_bytes(b"")
    (folder / "cut.pdf").write_bytes(
        b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pa"
    )
    (folder / "nothing.docx").write_bytes(b"")
    (folder / "picture.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + os.urandom(4096))
    return folder


def test_bad_files_fail_alone_each_with_its_own_reason(installation, tmp_path):
    folder = make_folder(tmp_path / "papers")

    shown = installation.penstock("ingest", str(folder), "--collection", "papers")
    hits = installation.penstock("search", "what controls the water of a turbine", "--collection", "papers", "--json")
    listed = installation.penstock("documents", "list", "--collection", "papers", "--json")

    assert shown.returncode == 3, shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr
    assert [hit["document"]["source"] for hit in json.loads(hits.stdout)["hits"]] == ["papers/good.md"]
    documents = {each["source"]: each for each in json.loads(listed.stdout)["data"]}
    assert documents["papers/good.md"]["state"] == "indexed"
    failed = {source: each["error_code"] for source, each in documents.items() if each["state"] == "failed"}
    assert failed == {
        "papers/empty.txt": "empty",
        "papers/cut.pdf": "truncated",
        "papers/nothing.docx": "empty",
        "papers/picture.txt": "binary",
    }
    reasons = {each["error"] for each in documents.values() if each["state"] == "failed"}
    assert all(reason for reason in reasons)
    for name in ("empty.txt", "cut.pdf", "nothing.docx", "picture.txt"):
        assert name in shown.stdout


def test_a_second_ingest_of_an_unchanged_folder_does_nothing_and_says_so(installation, tmp_path):
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(5):
        (folder / f"note-{number}.txt").write_text(f"This is note number {number} about rivers and weirs.")

    first = installation.penstock("ingest", str(folder), "--collection", "notes")
    with installation.client() as client:
        version = client.collection("notes").version
    again = installation.penstock("ingest", str(folder), "--collection", "notes")
    (folder / "note-3.txt").write_text("Note three is about lighthouses now.")
    changed = installation.penstock("ingest", str(folder), "--collection", "notes", "--json")

    assert (first.returncode, again.returncode, changed.returncode) == (0, 0, 0), (
        first.stderr + again.stderr + changed.stderr
    )
    assert "nothing to do" in again.stdout.lower()
    with installation.client() as client:
        assert client.collection("notes").version == version + 1
        assert sum(job.collection == "notes" for job in client.jobs().data) == 2
        only = {"type": "eq", "key": "$source", "value": "notes/note-3.txt"}
        texts = [hit.text for hit in client.search("notes", "lighthouses", k=10, filter=only).hits]
    assert texts == ["Note three is about lighthouses now."]
