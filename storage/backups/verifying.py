"""Reads backups again: whether they are still what was written."""

from collections.abc import Callable
from pathlib import Path

from ..errors import NotFound
from .copies import measured
from .places import Place


def verify(folder: Path, *, on_object: Callable[[int], None] = lambda _size_bytes: None) -> list[str]:
    """Compare every object of every backup with its checksum; return the names of those that are missing or damaged.

    A damaged copy is removed: the next backup that needs the object copies it again, and mends the older ones.

    Raises:
        NotFound: there are none. Conflict: a backup is being made there.
        Damaged: the rows of one, or its list of objects, are.
    """
    place = Place(folder)
    bad: list[str] = []
    with place.held():
        backups = place.list()
        if not backups:
            raise NotFound(f"there are no backups in {folder}: nothing was verified")
        for backup in backups:
            place.check(backup)
        for name, copy in {name: copy for one in backups for name, copy in place.copies(one).items()}.items():
            try:
                found = measured(name, place.objects, go_on=lambda: None)
            except NotFound:
                bad.append(name)
                continue
            if found != copy:
                place.objects.delete(name)
                bad.append(name)
            on_object(copy.size_bytes)
    return bad
