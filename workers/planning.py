"""Opens merges: the writer's after each publish, and those that were missed, a few at each tick of maintenance.

One is missed when its writer died between publishing and planning, or when it was dropped and nobody published again.
"""

import logging
from collections.abc import Collection
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from penstock.storage import ledger
from penstock.storage.catalog.tables import generations
from penstock.storage.errors import Damaged, NotFound, Unsupported
from penstock.storage.ids import GenerationId
from penstock.storage.publishing.planning import plan_merge
from penstock.storage.segments.manifests import Manifest, read_manifest

from .components import Components

log = logging.getLogger(__name__)

LOOKED_AT = 200  # manifests read in one tick
_GROWS = generations.c.state != "dropped"


def plan(components: Components, manifest: Manifest) -> bool:
    """Open the merge that this version needs.

    False: it needs none besides those that are open, one was given up not long ago (see ``ledger/setbacks.py``), or the
    generation is gone.
    """
    if not plan_merge(manifest):  # of most versions: then nothing is asked
        return False
    planned = plan_merge(manifest, taken=ledger.being_merged(components.catalog, manifest.generation_id))
    if not planned or not _may_merge(components, manifest.generation_id):
        return False
    details = {"segments": [entry.id for entry in planned]}
    now = components.clock()
    with suppress(NotFound):
        if ledger.open_merge(components.catalog, generation_id=manifest.generation_id, details=details, now=now):
            components.notices.work_ready()
            return True
    return False


def plan_missed(components: Components, *, after: str) -> tuple[int, str]:
    """Plan for the generations that follow ``after``; returns how many merges were opened, and where to go on."""
    served = sa.select(generations.c.id, generations.c.manifest).where(generations.c.manifest.is_not(None))
    wanted = served.where(generations.c.id > after, _GROWS).order_by(generations.c.id)
    with components.catalog.read() as connection:
        rows = connection.execute(wanted.limit(LOOKED_AT)).all()
        resting = _resting(components, connection, [row.id for row in rows])
    opened = 0
    for row in rows:
        if row.id in resting:
            continue
        try:
            opened += plan(components, read_manifest(components.objects, row.manifest))
        except (Damaged, Unsupported) as error:
            log.warning("No merge can be planned: %s", error, extra={"generation": row.id})
    return opened, rows[-1].id if len(rows) == LOOKED_AT else ""


def _may_merge(components: Components, generation_id: GenerationId) -> bool:
    wanted = sa.select(generations.c.id).where(generations.c.id == generation_id, _GROWS)
    with components.catalog.read() as connection:
        is_there = connection.scalar(wanted) is not None
        return is_there and not _resting(components, connection, [generation_id])


def _resting(components: Components, connection: Connection, generation_ids: Collection[str]) -> set[str]:
    """Return those whose last merge was given up, and that may not have another one yet."""
    most, now = components.settings.workers.max_attempts, components.clock()
    setbacks = ledger.read_setbacks(connection, generation_ids, max_attempts=most)
    return {generation_id for generation_id, setback in setbacks.items() if now < setback.again_at}
