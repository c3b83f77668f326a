"""Finds the files of folders that are to be ingested, and says why it leaves one out. Reads no content."""

import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import InvalidName
from ..limits import MAX_SOURCE_BYTES


@dataclass(frozen=True)
class Found:
    """A file and its source: its path below the folder that was given, with that folder's name or a prefix in front."""

    path: Path
    source: str
    size_bytes: int


@dataclass(frozen=True)
class Skipped:
    """A file or folder that could not be read, and why. Hidden ones are no loss and not among these.

    ``source``: what it, or what is below it, would be called; None where that is known to whoever sends it.
    """

    path: Path
    reason: str
    source: str | None = None


@dataclass
class Walk:
    """What was found below some folders, in a stable order."""

    found: list[Found] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)


def walk(roots: Iterable[Path], *, prefix: str | None = None) -> Walk:
    """Return the files of ``roots``, which are files or folders.

    Hidden files and folders are left out. A folder is read once: under its own name where that is below a root, else
    through the first link that leads to it. ``prefix`` takes the place of a folder's name in the sources, and stands
    before the name of a file that is a root itself.

    Raises:
        InvalidName: a root does not exist or has no name, two files would have the same source, or the prefix is not
            text.
    """
    if prefix is not None and not _is_text(prefix):
        raise InvalidName("--prefix is not valid UTF-8")
    result, seen = Walk(), _Seen()
    for root in roots:
        if not root.exists():
            raise InvalidName(f"{root}: no such file or folder")
        _add(result, _below(root, begun(root, prefix), seen))
    while seen.links:  # after all folders: a new link to one must not take its documents' names away
        path, source = seen.links.popleft()
        _add(result, _below(path, source, seen))
    _refuse_twins(result.found)
    return result


@dataclass
class _Seen:
    """The folders that were read, by device and inode, and the links to folders that are still to be followed."""

    folders: set[tuple[int, int]] = field(default_factory=set)
    links: deque[tuple[Path, str]] = field(default_factory=deque)


def _add(result: Walk, entries: Iterable[Found | Skipped]) -> None:
    for entry in entries:
        if isinstance(entry, Found):
            result.found.append(entry)
        else:
            result.skipped.append(entry)


def begun(root: Path, prefix: str | None) -> str:
    """Return what the sources of a root begin with. Raises InvalidName: it has no name, and no prefix was given."""
    name = Path(os.path.abspath(root)).name  # noqa: PTH100 a link keeps its own name
    if prefix is None:
        if not name:  # else every document of the collection would be below it
            raise InvalidName(
                f"{root} has no name for its sources to begin with: name a folder in it, or say what they begin with "
                "by --prefix ('' for nothing)"
            )
        return name
    return prefix if root.is_dir() else _joined(prefix, name)


def below(begin: str) -> str:
    """Return what all sources below a folder begin with, whose own is ``begin``."""
    return _joined(begin, "")


def _joined(begin: str, name: str) -> str:
    return f"{begin}{name}" if not begin or begin.endswith("/") else f"{begin}/{name}"


def _below(path: Path, source: str, seen: _Seen) -> Iterator[Found | Skipped]:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            identity = (status.st_dev, status.st_ino)
            if identity not in seen.folders:  # else a loop of links, or a folder given twice
                seen.folders.add(identity)
                for child in _children(path):
                    name = _joined(source, child.name)
                    if os.path.islink(child) and os.path.isdir(child):  # noqa: PTH112, PTH114 these raise nothing
                        seen.links.append((child, name))
                    else:
                        yield from _below(child, name, seen)
            return
    except OSError as error:
        yield Skipped(path, _why(path, error), source)
        return
    if not stat.S_ISREG(status.st_mode):
        yield Skipped(path, "not a regular file", source)
    elif not _is_text(source):
        yield Skipped(path, "its name is not valid UTF-8", source)
    elif (length := len(source.encode())) > MAX_SOURCE_BYTES:
        yield Skipped(path, f"its source has {length:,} bytes, more than {MAX_SOURCE_BYTES:,}", source)
    elif not os.access(path, os.R_OK):
        yield Skipped(path, "not readable by this user", source)
    else:
        yield Found(path, source, status.st_size)


def _children(path: Path) -> list[Path]:
    return sorted((child for child in path.iterdir() if not child.name.startswith(".")), key=lambda child: child.name)


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.is_symlink():
        return "a link to nothing"
    return (error.strerror or str(error)).lower()


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_twins(found: list[Found]) -> None:
    paths: dict[str, Path] = {}
    for file in found:
        twin = paths.setdefault(file.source, file.path)
        if twin is not file.path:
            raise InvalidName(
                f"{twin} and {file.path} would both be the document {file.source!r}: "
                "ingest a folder that holds both, rename one, or ingest them one after the other, "
                "each with a --prefix of its own"
            )
