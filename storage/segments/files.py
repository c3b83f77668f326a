"""The files of a segment where they are stored: found, downloaded once more when a copy is damaged, compared."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np

from ..errors import Damaged, Missing, NotFound
from ..ids import GenerationId, SegmentId, TenantId
from ..objects.store import ObjectStore
from ..paths import segment as segment_name
from .manifests import FileEntry, SegmentEntry, describe_file
from .sections import Array, Sections, open_sections

SEGMENT_KIND = "segment"
_OPENINGS_MAX = 3
_P = ParamSpec("_P")
_Opened = TypeVar("_Opened")


def mending(
    read: Callable[Concatenate[ObjectStore, SegmentEntry, _P], _Opened],
) -> Callable[Concatenate[ObjectStore, SegmentEntry, _P], _Opened]:
    """Let ``read`` try once more when it found damage in a local copy, which is then downloaded again."""

    @wraps(read)
    def reading(objects: ObjectStore, entry: SegmentEntry, /, *args: _P.args, **kwargs: _P.kwargs) -> _Opened:
        with naming(entry):
            try:
                return read(objects, entry, *args, **kwargs)
            except Missing:
                raise  # no copy is to blame, and to compare them all would take seconds
            except Damaged:
                if not drop_damaged_copies(objects, [entry]):
                    raise
                return read(objects, entry, *args, **kwargs)

    return reading


@contextmanager
def naming(entry: SegmentEntry) -> Iterator[None]:
    """Let what is found damaged within the block say in which segment."""
    try:
        yield
    except Missing:
        raise
    except Damaged as error:
        if entry.id in str(error):
            raise
        raise Damaged(f"segment {entry.id}: {error}") from error


def drop_damaged_copies(objects: ObjectStore, entries: Iterable[SegmentEntry]) -> bool:
    """Drop the local copies of files that are not what was written; returns whether one was. Reads them all."""
    # Every file is looked at: the first one that is damaged need not be the only one.
    files = [file for entry in entries for file in entry.all_files]
    return any([objects.drop_damaged_copy(file.name, blake2b=file.blake2b) for file in files])  # noqa: C419


def verify_file(objects: ObjectStore, file: FileEntry) -> None:
    """Compare a file's size and whole content with what the manifest says. Raises Damaged."""
    if describe_file(file.name, local_file(objects, file)) != file:
        raise Damaged(f"{file.name} does not match its checksum in the manifest; restore or rebuild it")


def local_file(objects: ObjectStore, file: FileEntry) -> Path:
    """Return a local file with the content of ``file``, downloaded and verified if need be; its size is checked.

    Raises:
        Damaged: missing, of another size, or not what was written.
    """
    try:
        path = objects.local_path(file.name, blake2b=file.blake2b)
        size_bytes = path.stat().st_size
    except (NotFound, FileNotFoundError) as error:
        raise missing(file) from error
    if size_bytes != file.size_bytes:
        raise Damaged(
            f"{file.name} has {size_bytes} bytes where the manifest says {file.size_bytes}: truncated or overwritten"
        )
    return path


def open_segment_file(objects: ObjectStore, entry: SegmentEntry) -> Sections:
    """Map the ``.segment`` file of an entry. Raises Damaged: it is missing, damaged, or another segment's."""
    sections = open_container(objects, entry.files[0], kind=SEGMENT_KIND)
    check_is_of(sections, entry)
    return sections


def check_is_of(sections: Sections, entry: SegmentEntry) -> None:
    """Raise Damaged unless the file was written as the one ``entry`` names: another tenant's must not be served."""
    if not is_of(sections, entry):
        # The error may reach a tenant, to whom it must not tell whose file it is.
        raise Damaged(
            f"{entry.files[0].name} holds another segment, as after a restore that mixed files up: restore it again"
        )


def is_of(sections: Sections, entry: SegmentEntry) -> bool:
    """Say whether a ``.segment`` file tells the tenant, generation and segment of the name that ``entry`` gives it.

    Not those of the manifest: that of a fork names the files of its parent's generation.
    """
    tenant, generation_id, segment_id = (
        str(sections.meta.get(word)) for word in ("tenant_id", "generation_id", "segment_id")
    )
    name = segment_name(TenantId(tenant), GenerationId(generation_id), SegmentId(segment_id))
    return segment_id == entry.id and name == entry.files[0].name


def open_container(objects: ObjectStore, file: FileEntry, *, kind: str) -> Sections:
    return mapped(objects, file, lambda path: open_sections(path, kind=kind))


def mapped(objects: ObjectStore, file: FileEntry, opener: Callable[[Path], _Opened]) -> _Opened:
    for _ in range(_OPENINGS_MAX):  # a cache may drop its copy between the two calls
        with suppress(NotFound, FileNotFoundError):
            return opener(local_file(objects, file))
    raise missing(file)


def missing(file: FileEntry) -> Missing:
    return Missing(f"{file.name} is missing from the object store; restore or rebuild it")


def column(sections: Sections, name: str, dtype: str, *, count: int, width: int | None = None) -> Array:
    shape = (count,) if width is None else (count, width)
    array = sections.arrays.get(name)
    if array is None or array.shape != shape or array.dtype != np.dtype(dtype):
        found = "missing" if array is None else f"{array.dtype}{array.shape}"
        raise Damaged(f"{sections.source}: section {name!r} is {found} where {dtype}{shape} is needed")
    return array


def descends(ascending: Array) -> bool:
    return bool((ascending[1:] <= ascending[:-1]).any())
