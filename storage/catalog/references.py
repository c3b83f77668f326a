"""Which version somebody means: by number, by tag, or the one that was current at a moment. It opens nothing."""

from dataclasses import dataclass, replace
from itertools import pairwise

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..errors import NotKept
from ..ids import GenerationId, ManifestVersion
from .engine import Catalog
from .generations import GenerationInfo
from .manifests import ManifestInfo, read_manifest_row
from .tables import manifests, tags

_RANGES_TOLD = 8
_VERSIONS_SEEN = 1_000  # of those that are kept, to say which there are
_TAGS_TOLD = 10


@dataclass(frozen=True)
class Reference:
    """At most one is given; none means the current version.

    Version 0 is from before the first. ``as_of`` is in seconds since 1970.
    """

    version: int | None = None
    tag: str | None = None
    as_of: float | None = None


CURRENT = Reference()


def find_version(catalog: Catalog, generation_id: GenerationId, reference: Reference) -> ManifestInfo | None:
    """Return the version that is meant; None: nothing was published then.

    Raises:
        NotKept: it is not there any more or never was; the message says which ones are.
    """
    with catalog.read() as connection:
        return read_version(connection, generation_id, reference)


def generation_at(catalog: Catalog, generation: GenerationInfo, reference: Reference) -> GenerationInfo:
    """Return the generation as it was when the version that is meant was its current one. Raises NotKept."""
    found = find_version(catalog, generation.id, reference)
    if found is None:
        return replace(generation, manifest=None, version=ManifestVersion(0))
    return replace(generation, manifest=found.name, version=found.version)


def read_version(connection: Connection, generation_id: GenerationId, reference: Reference) -> ManifestInfo | None:
    """Do what `find_version` does, in a transaction of the caller."""
    mine = manifests.c.generation_id == generation_id
    if reference.version == 0:
        return None
    if reference == CURRENT:
        return read_manifest_row(connection, generation_id, manifests.c.followed_at.is_(None))
    if reference.version is not None:
        found = read_manifest_row(connection, generation_id, manifests.c.version == reference.version)
        what = f"version {reference.version}"
    elif reference.tag is not None:
        named = sa.select(tags.c.version).where(tags.c.generation_id == generation_id, tags.c.name == reference.tag)
        found = read_manifest_row(connection, generation_id, manifests.c.version == named.scalar_subquery())
        what = f"a version with the tag {reference.tag!r}"
    else:
        assert reference.as_of is not None
        still = sa.or_(manifests.c.followed_at.is_(None), manifests.c.followed_at > reference.as_of)
        found = read_manifest_row(connection, generation_id, manifests.c.created_at <= reference.as_of, still)
        first = connection.scalar(sa.select(sa.func.min(manifests.c.version)).where(mine))
        if found is None and first in {None, 1}:
            began = connection.scalar(sa.select(sa.func.min(manifests.c.created_at)).where(mine))
            if began is None or reference.as_of < began:
                return None  # from before the first version, which is still here to tell
        what = "the version of that time"
    if found is None:
        raise NotKept(f"{what} is not kept: {_kept(connection, generation_id)}")
    return found


def _kept(connection: Connection, generation_id: GenerationId) -> str:
    numbers = sa.select(manifests.c.version).where(manifests.c.generation_id == generation_id)
    found = connection.scalars(numbers.order_by(manifests.c.version.desc()).limit(_VERSIONS_SEEN + 1)).all()
    if not found:
        return "nothing was published yet"
    ranges = ["…"] * (len(found) > _VERSIONS_SEEN) + _ranges(sorted(found[:_VERSIONS_SEEN]))
    named = sa.select(tags.c.name, tags.c.version).where(tags.c.generation_id == generation_id).order_by(tags.c.name)
    names = [f"{row.name} ({row.version})" for row in connection.execute(named.limit(_TAGS_TOLD + 1))]
    versions = _listed(ranges, most=_RANGES_TOLD, newest=True)
    told = f"there {'are versions' if len(found) > 1 else 'is version'} {versions}"
    return told + (f", and the tags {_listed(names, most=_TAGS_TOLD)}" if names else ", and no tag")


def _ranges(ascending: list[int]) -> list[str]:
    breaks = [0, *(i + 1 for i, (one, next_) in enumerate(pairwise(ascending)) if next_ != one + 1), len(ascending)]
    runs = [ascending[first:end] for first, end in pairwise(breaks)]
    return [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]


def _listed(words: list[str], *, most: int, newest: bool = False) -> str:
    if len(words) <= most:
        return ", ".join(words)
    return ", ".join(["…", *words[-most:]] if newest else [*words[:most], "…"])
