"""What schedules do to an index: take out what expired, and merge segments. Both open what the ledger does anyway, at a
time of somebody's choosing, and wait until it is done.
"""

import sqlalchemy as sa

from penstock.storage import ledger
from penstock.storage.catalog.completion import OPEN_BATCH
from penstock.storage.catalog.tables import NEVER_SERVED_AGAIN, batches, generations, versions
from penstock.storage.ids import GenerationId
from penstock.storage.segments.manifests import read_manifest

from .errors import RunFailed, RunWaits
from .planning import plan
from .run_work import RunWork

LOOK_S = 5.0
GIVEN_UP_S = 12 * 3_600.0  # a merge may take hours


def expire(work: RunWork) -> None:
    """Take out what has expired by now. ``progress``: how many documents that were."""
    components, found = work.components, _generations(work)
    if not work.progress.get("opened"):
        while ledger.open_expiries(components.catalog, now=components.clock(), every_s=0.0, of=found):
            work.go_on()
        work.progress["opened"] = True
        components.notices.work_ready()
    _wait(work, "expire")
    gone = sa.select(sa.func.count()).select_from(versions)
    gone = gone.where(NEVER_SERVED_AGAIN, versions.c.state == "expired", versions.c.finished_at >= work.run.began_at)
    if work.run.collection_id is not None:
        gone = gone.where(versions.c.collection_id == work.run.collection_id)
    with components.catalog.read() as connection:
        work.progress = {"expired": connection.scalars(gone).one()}


def merge(work: RunWork) -> None:
    """Merge until no more merge is due. ``progress``: how many were opened here; publishing opens others itself."""
    _wait(work, "merge", "swap")
    opened = 0
    for name in _manifests(work):
        work.go_on()
        opened += plan(work.components, read_manifest(work.components.objects, name))
    if opened:
        _check_time(work, opened)
        work.progress["opened"] = int(work.progress.get("opened", 0)) + opened
        raise RunWaits("merges were opened", after_s=LOOK_S)
    work.progress = {"merges": work.progress.get("opened", 0)}


def _wait(work: RunWork, *stages: str) -> None:
    """Return when no batch of these stages is open.

    Raises:
        RunWaits: one is. RunFailed: one was for half a day.
    """
    open_batch = (batches.c.stage.in_(stages), batches.c.state.in_(OPEN_BATCH))
    wanted = sa.select(sa.func.count()).select_from(batches).where(*open_batch)
    mine = _generations(work)
    if mine is not None:
        wanted = wanted.where(batches.c.generation_id.in_(mine))
    with work.components.catalog.read() as connection:
        left = connection.scalars(wanted).one()
    if not left:
        return
    work.progress["waits_for"] = left
    _check_time(work, left)
    raise RunWaits("batches are open", after_s=LOOK_S)


def _check_time(work: RunWork, left: int) -> None:
    if work.components.clock() - work.run.began_at > GIVEN_UP_S:
        raise RunFailed(f"{left} batches are not done after half a day: are the index and maintenance roles running?")


def _generations(work: RunWork) -> list[GenerationId] | None:
    """Return the generations that the run is about; None: all there are."""
    if work.run.collection_id is None:
        return None
    wanted = sa.select(generations.c.id).where(generations.c.collection_id == work.run.collection_id)
    with work.components.catalog.read() as connection:
        return [GenerationId(found) for found in connection.scalars(wanted)]


def _manifests(work: RunWork) -> list[str]:
    wanted = sa.select(generations.c.manifest).where(generations.c.manifest.is_not(None))
    if work.run.collection_id is not None:
        wanted = wanted.where(generations.c.collection_id == work.run.collection_id)
    with work.components.catalog.read() as connection:
        return [name for name in connection.scalars(wanted.order_by(generations.c.id)) if name is not None]
