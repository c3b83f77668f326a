"""The check before a switch: the generation that serves and the one that is to take over are asked the same questions.

What it finds is a report, and whether the new one passes; a person may force the switch all the same.
"""

import logging
from contextlib import closing

from penstock.pipeline.embedding.billing import billed
from penstock.pipeline.embedding.embedder import Embedder
from penstock.pipeline.shadow import ShadowReport, shadow_check
from penstock.settings import wiring
from penstock.settings.checking import shadow_options
from penstock.storage import ledger
from penstock.storage.costs import SearchCosts
from penstock.storage.errors import Conflict
from penstock.storage.reembedding.records import ReembeddingInfo, read_reembedding
from penstock.storage.reembedding.steps import finish_check

from .claims import ids
from .components import Components
from .liveness import Liveness

log = logging.getLogger(__name__)


def check_generations(components: Components, claim: ledger.Claim, *, liveness: Liveness) -> None:
    """Check the two generations of a re-embedding, and record what follows from it.

    Raises Conflict: it was ended, or the process is. What a model or a file that does not answer raises is for the
    ledger to know: the check is tried again.
    """
    with components.catalog.read() as connection:
        info = read_reembedding(connection, str(claim.reembedding_id))
    if info is None or info.state != "checking":
        raise Conflict("the re-embedding was ended")
    report = compare_generations(components, info, liveness=liveness)
    now = components.clock()
    state = finish_check(components.catalog, claim, passed=report.passed, report=report.described(), now=now)
    components.notices.work_ready()
    log.info("The new generation was checked: %s.", state, extra=ids(claim))


def compare_generations(components: Components, info: ReembeddingInfo, *, liveness: Liveness) -> ShadowReport:
    """Ask ``info.source``, which serves, and ``info.target``, which is to take over. Raises as `shadow_check`.

    Its questions are searches, and paid for as those are. Raises OverBudget: the tenant has no money left for them.
    """

    def proceed(_done: int, _all: int) -> None:
        liveness.moved()
        if liveness.stopping:
            raise Conflict("the worker was stopped: another one checks")

    settings = components.settings
    opened = closing(wiring.new_snapshots(settings, components.catalog, components.objects))
    with opened as snapshots, SearchCosts(components.catalog, clock=components.clock) as costs:

        def embedder_for(model: str, dimensions: int) -> Embedder:
            found = components.embedders.of(model, dimensions)
            price = found.card.price_per_million_tokens
            return billed(found, costs.payer(info.tenant_id, info.collection_id, model=model, price=price))

        return shadow_check(
            components.catalog,
            snapshots,
            embedder_for,
            tenant=info.tenant_id,
            collection_id=info.collection_id,
            old=info.source.id,
            new=info.target.id,
            options=shadow_options(settings),
            now=components.clock(),
            proceed=proceed,
        )
