"""The generations that a collection has, the one that is searched and those beside it, and where each one stands."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Row

from ..errors import NotFound
from ..ids import CollectionId, GenerationId, ManifestVersion, TenantId
from .engine import Catalog
from .tables import REEMBEDDING_ENDS, generations, manifests, reembeddings
from .values import IN_LIST, slices

MANY = 4  # rows that are read together cost less than one that is named
LAG_S = 60.0  # behind the active generation, by which one that follows it may be and still answer


@dataclass(frozen=True)
class GenerationInfo:
    """One generation. ``manifest`` is an object name, None until the first publish; ``version`` is then 0."""

    id: GenerationId
    tenant_id: TenantId
    collection_id: CollectionId
    state: str
    model: str
    dimensions: int
    metric: str
    quantization: str
    chunking: Mapping[str, Any]
    shard: int
    manifest: str | None
    version: ManifestVersion
    live_chunks: int
    published_at: float | None


def hold_generation(connection: Connection, generation_id: GenerationId) -> bool:
    """Keep collectors of the generation's files, and publishers, out until the commit; False: it is no more."""
    wanted = sa.select(generations.c.id).where(generations.c.id == generation_id)
    return connection.scalar(wanted.with_for_update(read=True)) is not None


def generation_info(catalog: Catalog, generation_id: GenerationId) -> GenerationInfo:
    """Return one generation. Raises NotFound: there is none, or it was dropped."""
    with catalog.read() as connection:
        found = read_generations(connection, [generation_id])
    if generation_id not in found or found[generation_id].state == "dropped":
        raise NotFound(f"there is no generation {generation_id!r}")
    return found[generation_id]


def read_generations(connection: Connection, ids: Sequence[str]) -> dict[GenerationId, GenerationInfo]:
    """Return the generations that exist among ``ids``."""
    found: dict[GenerationId, GenerationInfo] = {}
    for some in slices(list(ids)):
        rows = connection.execute(sa.select(*generation_columns()).where(generations.c.id.in_(some)))
        found.update((GenerationId(row.generation_id), generation_of(row)) for row in rows)
    return found


def is_generation_of(catalog: Catalog, generation_id: GenerationId, collection_id: CollectionId) -> bool:
    """Say whether the collection has or had that generation: it may have been dropped since."""
    mine = (generations.c.id == generation_id, generations.c.collection_id == collection_id)
    with catalog.read() as connection:
        return connection.scalar(sa.select(generations.c.id).where(*mine)) is not None


def pointers(catalog: Catalog, ids: Collection[str]) -> dict[GenerationId, tuple[str | None, ManifestVersion]]:
    """Return (manifest object name, version) of the generations that exist among ``ids``.

    Asked for most of thousands, it reads all: to name each costs five times as much.
    """
    wanted = set(ids)
    with catalog.read() as connection:
        if len(wanted) > IN_LIST and connection.execute(_COUNT).scalar_one() <= MANY * len(wanted):
            rows = connection.execute(_POINTERS).all()
        else:
            named = (connection.execute(_POINTERS_OF, {"ids": some}) for some in slices(sorted(wanted)))
            rows = [row for some in named for row in some]
    return {GenerationId(one): (manifest, ManifestVersion(version)) for one, manifest, version in rows if one in wanted}


# Made once: readers ask for every version, and each second for those of all that they have open.
_POINTERS = sa.select(generations.c.id, generations.c.manifest, generations.c.version).where(
    generations.c.state != "dropped"
)
_POINTERS_OF = _POINTERS.where(generations.c.id.in_(sa.bindparam("ids", expanding=True)))
_COUNT = sa.select(sa.func.count()).select_from(generations)


def generations_of(catalog: Catalog, collection_id: CollectionId, *, tenant: TenantId) -> list[GenerationInfo]:
    """Return the generations of a collection: the active one, then the others, the newest first."""
    return _generations(catalog, collection_id, tenant, sa.true())


def up_to_date_generations(
    catalog: Catalog, collection_id: CollectionId, *, tenant: TenantId, now: float
) -> list[GenerationInfo]:
    """Return the generations of a collection without those that served before and are behind: paused, or held up.

    Such a one would still find what was deleted since.
    """
    follows = (reembeddings.c.target_id == generations.c.id, reembeddings.c.state.not_in(REEMBEDDING_ENDS))
    active, base = generations.alias("active_one"), manifests.alias("base")
    behind = sa.and_(base.c.generation_id == active.c.id, base.c.version == reembeddings.c.base_version)
    caught_up = sa.or_(reembeddings.c.base_version == active.c.version, base.c.followed_at > now - LAG_S)
    followed = (
        sa.select(sa.literal(1))
        .select_from(reembeddings.join(active, active.c.id == reembeddings.c.source_id).outerjoin(base, behind))
        .where(*follows, reembeddings.c.paused_at.is_(None), caught_up)
        .correlate(generations)
    )
    return _generations(catalog, collection_id, tenant, sa.or_(generations.c.state != "retired", followed.exists()))


def _generations(
    catalog: Catalog, collection_id: CollectionId, tenant: TenantId, condition: sa.ColumnElement[bool]
) -> list[GenerationInfo]:
    of_collection = (generations.c.collection_id == collection_id, generations.c.tenant_id == tenant)
    mine = (*of_collection, generations.c.state != "dropped", condition)
    place = (sa.case((generations.c.state == "active", 0), else_=1), generations.c.created_at.desc(), generations.c.id)
    with catalog.read() as connection:
        ids = list(connection.scalars(sa.select(generations.c.id).where(*mine).order_by(*place)))
        found = read_generations(connection, ids)
    return [found[GenerationId(one)] for one in ids if GenerationId(one) in found]


def other_generation(
    catalog: Catalog, collection_id: CollectionId, *, tenant: TenantId, beside: GenerationId
) -> GenerationInfo:
    """Return the newest generation of a collection besides one of them. Raises NotFound."""
    for info in generations_of(catalog, collection_id, tenant=tenant):
        if info.id != beside:
            return info
    raise NotFound("the collection has one generation only: a re-embedding makes another one to compare it with")


def generation_columns() -> list[sa.ColumnElement[Any]]:
    """Return the columns that `generation_of` needs: all but the publisher's own business, and the collectors'."""
    left_out = (
        *("id", "created_at", "active_since", "next_chunk_id", "writer_epoch"),
        *("sweeps_begun", "sweeps_ended"),
    )
    named = [column for column in generations.c if column.name not in left_out]
    return [generations.c.id.label("generation_id"), *named]


def generation_of(row: Row[Any]) -> GenerationInfo:
    """Return the generation of a row that has `generation_columns`, perhaps among others."""
    values = row._mapping  # noqa: SLF001 - SQLAlchemy's public name for the row as a mapping
    names = [name for name in GenerationInfo.__dataclass_fields__ if name != "id"]
    return GenerationInfo(id=GenerationId(row.generation_id), **{name: values[name] for name in names})
