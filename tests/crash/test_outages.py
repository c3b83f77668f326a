"""Wherever the catalog is locked, or the disk is full, nothing is lost and nobody fails for it; later it goes on.

Trouble begins at a failpoint of a story in which documents are submitted, replaced and removed, and ends with the turn
of the role that it hit. Some places by chance in each run; `make crash` takes them all.
"""

import ctypes
import os
import random
import resource
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import pytest

from penstock.storage import failpoints
from penstock.storage.errors import Unavailable

from ..mortal_roles import MortalRoles, dies
from ..mortal_story import OLD, check, check_visible, places_in
from ..served_model import text_of

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

NEW = {"a": text_of("a", 2), "d": text_of("d", 1)}
AFTER = {"a": NEW["a"], "b": OLD["b"], "d": NEW["d"]}
SAMPLE = 14
TMPFS_BYTES = 32 << 20
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
set_limit = resource.setrlimit  # a line of roles keeps them from it


class Trouble(Protocol):
    def begin(self) -> None: ...

    def end(self) -> None: ...


class Lock:
    """Another process that holds the catalog's lock, longer than anybody waits for it."""

    def __init__(self, catalog: Path) -> None:
        self._catalog = catalog
        self._holder: int | None = None
        self._telling = -1

    def begin(self) -> None:
        ours, theirs = os.pipe()
        told, self._telling = os.pipe()
        self._holder = os.fork()
        if self._holder == 0:
            os.close(self._telling)
            try:
                connection = sqlite3.connect(self._catalog, isolation_level=None, timeout=20)
                connection.execute("BEGIN EXCLUSIVE")
                os.write(theirs, b"y")
                os.read(told, 1)  # until it is told so, or its parent is gone
            finally:
                os._exit(1)
        os.close(theirs)
        os.close(told)
        locked = os.read(ours, 1)
        os.close(ours)
        assert locked == b"y", "the catalog could not be locked"

    def end(self) -> None:
        if self._holder is not None:
            os.close(self._telling)
            os.waitpid(self._holder, 0)
            self._holder = None


class FileSizeLimit:
    """No file may grow, nor be begun: as on a disk that is full, writes end in the middle and syncs fail."""

    def __init__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def begin(self) -> None:
        set_limit(resource.RLIMIT_FSIZE, (0, self._before[1]))

    def end(self) -> None:
        set_limit(resource.RLIMIT_FSIZE, self._before)


class FullDisk:
    """A file that takes all that is left of a file system."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "filler"

    def begin(self) -> None:
        with self._file.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def end(self) -> None:
        self._file.unlink(missing_ok=True)


@pytest.fixture
def hasty() -> Iterator[None]:
    """Nobody waits for the catalog's lock for long."""
    with patch("penstock.storage.catalog.engine.LOCK_WAIT_S", 0.05):
        yield


def story(line: MortalRoles) -> None:
    line.submit("acme", NEW)
    line.remove("acme", ["c"])


def trouble_at(line: MortalRoles, place: str, trouble: Trouble) -> bool:
    """Play the story with trouble from one place on, until whoever met it is through with what he was doing.

    Returns whether it was met: how often a lease is renewed depends on how long the story takes.
    """
    met = []

    def begin(*_: object) -> None:
        met.append(place)
        trouble.begin()

    @contextmanager
    def turn(_number: int) -> Iterator[None]:
        try:
            yield
            check_visible(line, OLD, AFTER)  # readers go on
        finally:
            trouble.end()

    kill = os.kill
    with (
        patch.dict(os.environ, {failpoints.VARIABLE: place}),
        patch.object(failpoints, "_hits", Counter()),
        patch.object(failpoints.os, "kill", lambda pid, number: begin() if pid == os.getpid() else kill(pid, number)),
    ):
        try:
            with turn(0):
                story(line)
        except (Unavailable, OSError):
            story(line)  # who was refused asks again
        try:
            line.run(trouble=turn)
        finally:
            trouble.end()  # it may have begun when the roles had stopped
    check(line, AFTER)
    return bool(met)


def everywhere(line: MortalRoles, *, template: Path, make: Callable[[], Trouble], without: str = "nothing") -> None:
    """Meet trouble at several places of the story, all of them in `make crash`."""
    record = line.folder.with_name("record")
    record.unlink(missing_ok=True)

    def play() -> None:
        story(line)
        line.run()

    assert not dies(play, record=record)
    places = [place for some in places_in(record).values() for place in some if without not in place]
    assert len(places) > SAMPLE
    seed = int(os.environ.get("PENSTOCK_TEST_SEED", random.SystemRandom().randrange(2**32)))
    print(f"PENSTOCK_TEST_SEED={seed}")
    if "PENSTOCK_TEST_ROUNDS" not in os.environ:
        places = random.Random(seed).sample(places, SAMPLE)
    met = 0
    for place in places:
        line.restore(template)
        try:
            met += trouble_at(line, place, make())
        except AssertionError as error:
            raise AssertionError(f"trouble at {place}: {error}") from error
    assert met >= 0.75 * len(places)


def test_a_catalog_that_is_locked_for_long_costs_time_and_no_document(hasty, line, mortal_template):
    # Before a commit the lock is ours.
    everywhere(
        line, template=mortal_template, make=lambda: Lock(line.folder / "catalog.sqlite3"), without="before_commit"
    )


def test_a_disk_without_room_for_a_byte_costs_time_and_no_document(line, mortal_template):
    everywhere(line, template=mortal_template, make=FileSizeLimit)


def test_a_full_file_system_costs_time_and_no_document(mortal_template, tmp_path):
    (tmp_path / "disk").mkdir()

    def work() -> None:
        if not mounted(tmp_path / "disk"):
            (tmp_path / "refused").touch()
            return
        (tmp_path / "disk" / "line").mkdir()
        line = MortalRoles(tmp_path / "disk" / "line")
        line.restore(mortal_template)
        everywhere(line, template=mortal_template, make=lambda: FullDisk(tmp_path / "disk"))

    dies(work)
    if (tmp_path / "refused").exists():
        pytest.skip("no small file system can be mounted here; the test with a limit on files says nearly the same")


def mounted(folder: Path) -> bool:
    """Mount a small file system for this process alone; returns whether that may be done."""
    libc = ctypes.CDLL(None, use_errno=True)
    maps = {"setgroups": "deny", "uid_map": f"0 {os.getuid()} 1", "gid_map": f"0 {os.getgid()} 1"}
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
        return False
    try:
        for name, value in maps.items():
            Path("/proc/self", name).write_text(value)
    except OSError:
        return False
    options = f"size={TMPFS_BYTES}".encode()
    return bool(libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, options) == 0)
