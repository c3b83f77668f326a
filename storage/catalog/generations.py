"""The generations that a collection has: the one that is searched, and those beside it."""

import sqlalchemy as sa

from ..errors import NotFound
from ..ids import CollectionId, GenerationId, TenantId
from .collections import GenerationInfo, read_generations
from .engine import Catalog
from .tables import generations


def generations_of(catalog: Catalog, collection_id: CollectionId, *, tenant: TenantId) -> list[GenerationInfo]:
    """Return the generations of a collection: the active one, then the others, the newest first."""
    of_collection = (generations.c.collection_id == collection_id, generations.c.tenant_id == tenant)
    mine = (*of_collection, generations.c.state != "dropped")
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
