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


def short_waits(catalog: Catalog, claim: Claim, *, now: float) -> bool:
    """Return whether a batch was sent for the same stage that is short and does not belong behind ``claim``.

    It is another tenant's, or more urgent. Full batches pass no other: their tenants would take turns more often, and
    get less done. What another kind of worker was sent for is no concern of this one.
    """
    first = sa.or_(batches.c.tenant_id != claim.tenant_id, batches.c.priority < claim.priority)
    short = (batches.c.document_count <= SHORT_DOCUMENTS, batches.c.size_bytes <= SHORT_BYTES)
    waits = (batches.c.stage == claim.stage, batches.c.state == "sent", batches.c.next_attempt_at <= now)
    mine = batches.c.express.is_(claim.express)
    with catalog.read() as connection:
        return (
            connection.execute(sa.select(batches.c.id).where(*waits, mine, first, *short).limit(1)).first() is not None
        )
