"""The generations that a collection has: the one that is searched, and those beside it."""

import sqlalchemy as sa

from ..errors import NotFound
from ..ids import CollectionId, GenerationId, TenantId
from .collections import GenerationInfo, read_generations
from .engine import Catalog
from .tables import REEMBEDDING_ENDS, generations, manifests, reembeddings

LAG_S = 60.0  # behind the active generation, by which one that follows it may be and still answer


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
