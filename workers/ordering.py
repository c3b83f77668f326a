"""The embed role's side of orders: what of a batch was ordered and came, and what of it is to be ordered."""

from collections.abc import Sequence

from penstock.pipeline.embedding import Embedder
from penstock.pipeline.embedding.billing import Payer
from penstock.pipeline.embedding.ordered import Ordered
from penstock.pipeline.embedding.orders import TakesOrders
from penstock.storage import ledger
from penstock.storage.catalog.tables import ECONOMY
from penstock.storage.ledger.orders import MOST_TIMES
from penstock.storage.segments.rows import Rows

from . import staging
from .components import Components

REASON = "waits to be ordered: its vectors cost half, and may take a day"


def with_orders(components: Components, claim: ledger.Claim, embedder: Embedder, *, payer: Payer) -> Embedder:
    """Return what embeds a batch: ``embedder`` itself, unless the batch is for economy and the provider takes orders.

    Then what came by an order is taken first, and the rest raises ToBeOrdered; or is embedded at once where orders did
    not bring it.
    """
    if claim.priority != ECONOMY or not isinstance(embedder, TakesOrders) or embedder.provider() is None:
        return embedder
    trip = ledger.trip_of(components.catalog, claim.batch_id)
    delivered = staging.read_delivered(components.objects, trip.objects, dimensions=embedder.card.dimensions)
    return Ordered(embedder, delivered, orders=trip.is_open or trip.ordered < MOST_TIMES, payer=payer)


def put_aside(components: Components, claim: ledger.Claim, rows: Rows, texts: Sequence[str]) -> None:
    """Hand the batch back to be ordered: those of its chunks, ``rows``, that have these texts, each text once."""
    missing, chosen = set(texts), []
    for row in range(len(rows)):
        if rows.text(row) in missing:
            missing.discard(rows.text(row))
            chosen.append(row)
    tokens = int(rows.tokens[chosen].sum())
    staged = None
    if claim.input is None:  # a slice of a re-embedding, which is read from the index
        staged = staging.write_asked(components.objects, rows, tenant=claim.tenant_id, batch_id=claim.batch_id)
    now = components.clock()
    ledger.put_aside(components.catalog, claim, rows=chosen, tokens=tokens, reason=REASON, now=now, chunks=staged)
    ledger.give_turn_back(components.catalog, claim)
