"""Walks the folders that a person names, and words what is wrong with them as wrong usage."""

from collections.abc import Iterable
from pathlib import Path

from penstock.storage.errors import InvalidName
from penstock.storage.folders.walks import Found, Skipped, Walk, below
from penstock.storage.folders.walks import begun as _begun
from penstock.storage.folders.walks import walk as _walk

from .exits import UsageError

__all__ = ["Found", "Skipped", "Walk", "begun", "below", "walk"]


def walk(roots: Iterable[Path], *, prefix: str | None = None) -> Walk:
    """Return the files of these files and folders: see ``storage/folders``. Raises UsageError."""
    try:
        return _walk(roots, prefix=prefix)
    except InvalidName as error:
        raise UsageError(str(error)) from error


def begun(root: Path, prefix: str | None) -> str:
    """Return what the sources of a root begin with. Raises UsageError: it has no name, and no prefix was given."""
    try:
        return _begun(root, prefix)
    except InvalidName as error:
        raise UsageError(str(error)) from error
