"""The embed role's side of orders: what of a batch was ordered and came, and what of it is to be ordered."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from penstock.pipeline.embedding import Embedder
from penstock.pipeline.embedding.ordered import Ordered, ToBeOrdered
from penstock.pipeline.embedding.orders import TakesOrders
from penstock.storage import ledger
from penstock.storage.catalog.tables import ECONOMY
from penstock.storage.costs import Payee
from penstock.storage.ids import JobId
from penstock.storage.ledger.orders import MOST_TIMES
from penstock.storage.segments.rows import Rows

from . import staging
from .components import Components

REASON = "waits to be ordered: its vectors cost half, and may take a day"


def with_orders(components: Components, claim: ledger.Claim, embedder: Embedder) -> Embedder:
    """Return what embeds a batch: ``embedder`` itself, unless the batch is for economy and the provider takes orders.

    Then what came by an order is taken first, and the rest raises ToBeOrdered; or is embedded at once where orders did
    not bring it.
    """
    if claim.priority != ECONOMY or not isinstance(embedder, TakesOrders) or embedder.provider() is None:
        return embedder
    trip = ledger.trip_of(components.catalog, claim.batch_id)
    delivered = staging.read_delivered(components.objects, trip.objects, dimensions=embedder.card.dimensions)
    return Ordered(embedder, delivered, orders=trip.is_open or trip.ordered < MOST_TIMES)


def put_aside(components: Components, claim: ledger.Claim, rows: Rows, asked: ToBeOrdered) -> None:
    """Hand the batch back to be ordered: those of its chunks, ``rows``, that have these texts, each text once.

    Raises OverBudget: there is no money for that. Conflict: the claim was lost.
    """
    missing, chosen = set(asked.texts), []
    for row in range(len(rows)):
        if rows.text(row) in missing:
            missing.discard(rows.text(row))
            chosen.append(row)
    staged, payee = None, _payee(components, claim, rows, chosen)
    if claim.input is None:  # a slice of a re-embedding, which is read from the index
        staged = staging.write_asked(components.objects, rows, tenant=claim.tenant_id, batch_id=claim.batch_id)
    now = components.clock()
    told: dict[str, Any] = {"reason": REASON, "chunks": staged}
    ledger.put_aside(components.catalog, claim, rows=chosen, tokens=asked.tokens, payee=payee, now=now, **told)
    ledger.give_turn_back(components.catalog, claim)


def _payee(components: Components, claim: ledger.Claim, rows: Rows, chosen: Sequence[int]) -> Payee:
    """Return who pays for ordering these rows; jobs share it by their tokens."""
    generation = claim.generation
    price = components.embedders.of(generation.model, generation.dimensions).card.order_price_per_million_tokens
    jobs: dict[str, JobId] = {version.id: version.job_id for version in claim.versions}
    weights: Counter[JobId] = Counter()
    for row in chosen:
        job_id = jobs.get(rows.documents[int(rows.document[row])].version_id)
        if job_id is not None:  # else the same text is wanted of another document
            weights[job_id] += int(rows.tokens[row])
    if claim.reembedding_id is not None:
        weights = Counter({JobId(claim.reembedding_id): 1})
    elif not weights:
        weights = Counter(jobs.values())
    return Payee(claim.tenant_id, generation.collection_id, generation.model, price, weights)
