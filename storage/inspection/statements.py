"""What the catalog says there should be: generations, their kept versions, and what each of them states. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..catalog.engine import Catalog
from ..catalog.generations import GenerationInfo, read_generations
from ..catalog.tables import collections, generations, manifests, reader_leases, tags
from ..ids import GenerationId, ManifestVersion, TenantId


@dataclass(frozen=True)
class StatedVersion:
    """A version that is kept, as its row has it. ``leased``: a reader has it open, or died not long ago."""

    name: str
    version: ManifestVersion
    segment_count: int
    live_chunks: int
    size_bytes: int
    tags: tuple[str, ...]
    leased: bool

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.segment_count, self.live_chunks, self.size_bytes


@dataclass(frozen=True)
class StatedGeneration:
    """A generation and its kept versions, the newest first; none before the first publish."""

    info: GenerationInfo
    collection: str
    next_chunk_id: int
    writer_epoch: int
    versions: Sequence[StatedVersion]

    @property
    def names(self) -> list[str]:
        """The manifests of all kept versions, the newest first, and of the one that the generation points to."""
        names = [version.name for version in self.versions]
        pointer = self.info.manifest
        return names if pointer is None or pointer in names else [pointer, *names]

    @property
    def current(self) -> StatedVersion | None:
        """The row of the version that the generation points to, if there is one."""
        return next((one for one in self.versions if one.name == self.info.manifest), None)


def read_stated(catalog: Catalog, tenant: TenantId) -> list[StatedGeneration]:
    """Return the tenant's generations, by id, as they are at one moment."""
    with catalog.read() as connection:
        here = (generations.c.tenant_id == tenant, generations.c.state != "dropped")
        wanted = sa.select(generations.c.id).where(*here).order_by(generations.c.id)
        return [read_stated_generation(connection, GenerationId(found)) for found in connection.scalars(wanted).all()]


def read_stated_generation(connection: Connection, generation_id: GenerationId) -> StatedGeneration:
    """Return one generation that exists, in a transaction of the caller."""
    private = (generations.c.next_chunk_id, generations.c.writer_epoch, collections.c.name)
    named = sa.select(*private).join(collections, collections.c.id == generations.c.collection_id)
    row = connection.execute(named.where(generations.c.id == generation_id)).one()
    info = read_generations(connection, [generation_id])[generation_id]
    return StatedGeneration(info, row.name, row.next_chunk_id, row.writer_epoch, _versions(connection, generation_id))


def kept_names(connection: Connection, tenant: TenantId) -> set[str]:
    """Return the names of all manifests of the tenant that are kept."""
    return set(connection.scalars(sa.select(manifests.c.name).where(manifests.c.tenant_id == tenant)))


def _versions(connection: Connection, generation_id: GenerationId) -> list[StatedVersion]:
    named: dict[int, list[str]] = {}
    for tag in connection.execute(sa.select(tags.c.version, tags.c.name).where(tags.c.generation_id == generation_id)):
        named.setdefault(tag.version, []).append(tag.name)
    held = sa.select(reader_leases.c.version).where(reader_leases.c.generation_id == generation_id)
    leased = set(connection.scalars(held))
    wanted = sa.select(manifests).where(manifests.c.generation_id == generation_id)
    return [
        StatedVersion(
            name=row.name,
            version=ManifestVersion(row.version),
            segment_count=row.segment_count,
            live_chunks=row.live_chunks,
            size_bytes=row.size_bytes,
            tags=tuple(sorted(named.get(row.version, ()))),
            leased=row.version in leased,
        )
        for row in connection.execute(wanted.order_by(manifests.c.version.desc()))
    ]
