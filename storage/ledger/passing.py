"""What may pass a batch that is being worked on. It reads only."""

import sqlalchemy as sa

from ..catalog.engine import Catalog
from ..catalog.tables import batches
from .claims import Claim
from .turns import FULL_BYTES, FULL_DOCUMENTS

SHORT = 1 / 8  # of a full batch


def short_waits(catalog: Catalog, claim: Claim, *, now: float) -> bool:
    """Return whether a batch was sent for the same stage that is short and does not belong behind ``claim``.

    It is another tenant's, or more urgent. Full batches pass no other: their tenants would take turns more often, and
    get less done.
    """
    first = sa.or_(batches.c.tenant_id != claim.tenant_id, batches.c.priority < claim.priority)
    short = (batches.c.document_count <= SHORT * FULL_DOCUMENTS, batches.c.size_bytes <= SHORT * FULL_BYTES)
    waits = (batches.c.stage == claim.stage, batches.c.state == "sent", batches.c.next_attempt_at <= now)
    with catalog.read() as connection:
        return connection.execute(sa.select(batches.c.id).where(*waits, first, *short).limit(1)).first() is not None
