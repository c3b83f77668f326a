"""What passes others: short batches, which have a worker of their own, or end the turn of a long one. It reads only."""

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import batches
from .claims import Claim
from .turns import FULL_BYTES, FULL_DOCUMENTS

SHORT_DOCUMENTS, SHORT_BYTES = FULL_DOCUMENTS // 8, FULL_BYTES // 8
SHORT_CHUNKS = 48  # a fifth of a full batch, and less than one of a slow model has


def is_short(*, documents: int, chunks: int, size_bytes: int) -> bool:
    """Say whether a batch of this size is done before anybody notices."""
    return 0 < documents <= SHORT_DOCUMENTS and chunks <= SHORT_CHUNKS and size_bytes <= SHORT_BYTES


def others_wait(catalog: Catalog, claim: Claim, *, now: float, had_turn: bool) -> bool:
    """Return whether a batch was sent for the same stage that does not belong behind what is left of ``claim``.

    It is short, and another tenant's or more urgent. Full batches pass no other: their tenants would take turns more
    often, and get less done. Once ``claim`` ``had_turn``, either is enough. What another kind of worker was sent for is
    no concern of this one.
    """
    first = sa.or_(batches.c.tenant_id != claim.tenant_id, batches.c.priority < claim.priority)
    short = sa.and_(batches.c.document_count <= SHORT_DOCUMENTS, batches.c.size_bytes <= SHORT_BYTES)
    waits = (batches.c.stage == claim.stage, batches.c.state == "sent", batches.c.next_attempt_at <= now)
    passes = sa.or_(first, short) if had_turn else sa.and_(first, short)
    found = sa.select(batches.c.id).where(*waits, batches.c.express.is_(claim.express), passes).limit(1)
    with catalog.read() as connection:
        return connection.execute(found).first() is not None
