"""Leases of readers on versions: rows that keep a version while a live process uses it. It touches no object.

No clock is compared: a lease carries a beat that its reader raises, and whoever collects ends a lease whose beat he has
seen standing still for long enough by his own clock. A reader that was taken for dead learns it from the next beat.
"""

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..ids import GenerationId, ManifestVersion
from .engine import Catalog
from .manifests import hold_manifest
from .statements import insert_if_absent
from .tables import reader_leases
from .values import slices

LeasedVersion = tuple[GenerationId, ManifestVersion]


@dataclass(frozen=True)
class Beat:
    """How a lease was seen."""

    reader: str
    generation_id: GenerationId
    version: ManifestVersion
    beat: int


def take_lease(catalog: Catalog, leased: LeasedVersion, *, reader: str) -> None:
    """Keep a version for ``reader``; twice is harmless. Raises NotKept: it is over."""
    generation_id, version = leased
    with catalog.write("take_lease") as connection:
        hold_manifest(connection, generation_id, version)
        # Not from zero: a lease that is taken again must not be taken for the one that stood still.
        row = {"reader": reader, "generation_id": generation_id, "version": version, "beat": secrets.randbits(62)}
        insert_if_absent(connection, reader_leases, row)


def renew_leases(catalog: Catalog, *, reader: str) -> set[LeasedVersion]:
    """Raise the beat of all leases of ``reader`` and return those that it still has."""
    mine = sa.update(reader_leases).where(reader_leases.c.reader == reader).values(beat=reader_leases.c.beat + 1)
    with catalog.write("renew_leases") as connection:
        rows = connection.execute(mine.returning(reader_leases.c.generation_id, reader_leases.c.version)).all()
    return {(GenerationId(row.generation_id), ManifestVersion(row.version)) for row in rows}


def end_leases(catalog: Catalog, leased: Collection[LeasedVersion], *, reader: str) -> None:
    """Give leases back; no error when they are gone."""
    with catalog.write("end_leases") as connection:
        for some in slices(list(leased), 200):
            pairs = sa.tuple_(reader_leases.c.generation_id, reader_leases.c.version).in_(some)
            connection.execute(sa.delete(reader_leases).where(reader_leases.c.reader == reader, pairs))


def read_beats(catalog: Catalog) -> list[Beat]:
    """Return every lease of this installation as it is now."""
    with catalog.read() as connection:
        return [
            Beat(row.reader, GenerationId(row.generation_id), ManifestVersion(row.version), row.beat)
            for row in connection.execute(sa.select(reader_leases))
        ]


def end_lapsed(connection: Connection, beats: Iterable[Beat]) -> int:
    """End those of these leases that were not renewed since they were seen so; returns how many."""
    ended = 0
    for seen in beats:
        columns = reader_leases.c
        same = (columns.reader == seen.reader, columns.generation_id == seen.generation_id)
        exact = (columns.version == seen.version, columns.beat == seen.beat)
        ended += connection.execute(sa.delete(reader_leases).where(*same, *exact)).rowcount
    return ended
