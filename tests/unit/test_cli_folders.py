"""Which files `penstock ingest` finds, what they are called, and why one is left out."""

import os
import socket
from pathlib import Path

import pytest

from penstock.api.cli.exits import UsageError
from penstock.api.cli.folders import begun, walk


def sources(*roots) -> list[str]:
    return [file.source for file in walk(roots).found]


def test_a_source_is_the_path_below_the_folder_with_its_name_in_front(tmp_path):
    folder = tmp_path / "papers"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "b.txt").write_text("b")
    (folder / "deep" / "er" / "a.txt").write_text("a")

    assert sources(folder) == ["papers/b.txt", "papers/deep/er/a.txt"]
    assert sources(folder / "b.txt") == ["b.txt"]
    assert [file.size_bytes for file in walk([folder]).found] == [1, 1]


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        (None, ["papers/b.txt", "papers/deep/a.txt", "c.txt"]),
        ("", ["b.txt", "deep/a.txt", "c.txt"]),
        ("mine", ["mine/b.txt", "mine/deep/a.txt", "mine/c.txt"]),
        ("mine/", ["mine/b.txt", "mine/deep/a.txt", "mine/c.txt"]),
        ("s3://", ["s3://b.txt", "s3://deep/a.txt", "s3://c.txt"]),
    ],
)
def test_a_prefix_takes_the_place_of_the_folders_name(tmp_path, prefix, found):
    folder = tmp_path / "papers"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "b.txt", folder / "deep" / "a.txt", tmp_path / "c.txt"):
        path.write_text("x")

    assert [file.source for file in walk([folder, tmp_path / "c.txt"], prefix=prefix).found] == found


def test_a_folder_without_a_name_needs_a_prefix_and_a_relative_one_has_that_of_the_folder_it_is(tmp_path, monkeypatch):
    (tmp_path / "papers" / "deep").mkdir(parents=True)
    (tmp_path / "papers" / "a.txt").write_text("a")
    for root in ("/", "//", "/..", "/tmp/.."):
        with pytest.raises(UsageError, match=f"^{root} has no name for its sources to begin with"):
            walk([Path(root)])
        assert begun(Path(root), "mine") == "mine"
    monkeypatch.chdir(tmp_path / "papers")
    assert sources(Path()) == ["papers/a.txt"]
    monkeypatch.chdir("deep")
    assert sources(Path("..")) == ["papers/a.txt"]


def test_a_prefix_that_is_not_text_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="--prefix"):
        walk([tmp_path], prefix="\udcff")


def test_a_source_that_no_server_takes_is_skipped_alone(tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("a")
    (tmp_path / "papers" / ("b" * 20)).write_text("b")

    result = walk([tmp_path / "papers"], prefix="p" * 2042)
    assert [len(file.source) for file in result.found] == [2048]
    assert [skipped.reason for skipped in result.skipped] == ["its source has 2,063 bytes, more than 2,048"]


def test_the_source_does_not_depend_on_how_the_folder_was_written(tmp_path, monkeypatch):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    monkeypatch.chdir(folder)
    for written in (folder, Path(), Path("../papers"), folder / ".." / "papers"):
        assert sources(written) == ["papers/a.txt"]


def test_a_link_as_root_keeps_its_own_name(tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "a.txt").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "papers")
    assert sources(tmp_path / "link") == ["link/a.txt"]


def test_hidden_files_and_folders_are_no_loss(tmp_path):
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("x")
    (tmp_path / ".hidden").write_text("x")
    walked = walk([tmp_path])
    assert walked.found == []
    assert walked.skipped == []


def test_a_loop_of_links_ends(tmp_path):
    folder = tmp_path / "papers"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    (folder / "inner" / "again").symlink_to(folder)
    walked = walk([folder])
    assert [file.source for file in walked.found] == ["papers/inner/a.txt"]
    assert walked.skipped == []


def test_a_folder_is_read_under_its_own_name_whatever_links_lead_to_it(tmp_path):
    folder, outside = tmp_path / "papers", tmp_path / "outside"
    for made in (folder / "inner", outside / "deep"):
        made.mkdir(parents=True)
        (made / "a.txt").write_text("a")
    targets = {"alias": folder / "inner", "first": outside, "second": outside, "zoo": outside / "deep"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)

    assert sources(folder) == ["papers/inner/a.txt", "papers/first/deep/a.txt"]
    assert sources(folder, outside) == ["papers/inner/a.txt", "outside/deep/a.txt"]


def test_a_link_to_a_file_is_a_file(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (tmp_path / "outside.txt").write_text("x")
    (folder / "link.txt").symlink_to(tmp_path / "outside.txt")
    assert sources(folder) == ["papers/link.txt"]


def test_what_cannot_be_read_is_listed_with_its_reason(tmp_path):
    folder = tmp_path / "papers"
    folder.mkdir()
    (folder / "broken").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "socket"))
        (folder / "good.txt").write_text("x")
        walked = walk([folder])

    assert [file.source for file in walked.found] == ["papers/good.txt"]
    assert {skipped.path.name: skipped.reason for skipped in walked.skipped} == {
        "broken": "a link to nothing",
        "pipe": "not a regular file",
        "socket": "not a regular file",
    }


def test_a_name_that_is_no_text_is_listed(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    except OSError:
        pytest.skip("this file system only takes UTF-8 names")
    assert [skipped.reason for skipped in walk([tmp_path]).skipped] == ["its name is not valid UTF-8"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file_is_listed(tmp_path):
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "secret.txt").chmod(0)
    assert [skipped.reason for skipped in walk([tmp_path]).skipped] == ["not readable by this user"]


def test_a_root_that_is_not_there_is_wrong_usage(tmp_path):
    with pytest.raises(UsageError, match="none: no such file or folder"):
        walk([tmp_path / "none"])


def test_two_files_of_one_name_are_wrong_usage(tmp_path):
    for parent in ("one", "two"):
        (tmp_path / parent / "papers").mkdir(parents=True)
        (tmp_path / parent / "papers" / "a.txt").write_text(parent)
    with pytest.raises(UsageError, match=r"would both be the document 'papers/a\.txt'"):
        walk([tmp_path / "one" / "papers", tmp_path / "two" / "papers"])
