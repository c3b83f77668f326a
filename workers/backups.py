"""A schedule that makes backups, of everything or of one collection, into a folder of this machine."""

from pathlib import Path

from penstock.storage.backups import Progress, Scope, make_backup
from penstock.storage.schedules.actions import leads_out

from .errors import RunFailed
from .run_work import RunWork


def back_up(work: RunWork) -> None:
    """Do one run. ``progress``: the backup's id, and how many objects were copied and were there already."""
    components, folder = work.components, Path(work.run.options["destination"])
    if leads_out(folder, components.settings.schedules.backup_roots):
        raise RunFailed(f"schedules may not write to {folder}: it lies below none of schedules.backup_roots any more")
    progress = Progress()

    def go_on() -> None:
        work.progress |= {"copied": progress.copied, "copied_bytes": progress.copied_bytes, "kept": progress.kept}
        work.go_on()

    progress.go_on = go_on
    made = make_backup(
        components.catalog,
        components.objects,
        folder,
        scope=Scope(work.run.tenant, work.run.collection_id),
        now=components.clock(),
        keep=work.run.options.get("keep"),
        progress=progress,
    )
    work.progress = {
        "backup": made.id,
        "copied": progress.copied,
        "copied_bytes": progress.copied_bytes,
        "kept": progress.kept,
        "objects": made.object_count,
        "size_bytes": made.size_bytes,
    }
    if made.missing:
        raise RunFailed(
            f"backup {made.id} was made, but {len(made.missing):,} objects that the catalog names are missing or "
            f"damaged, such as {made.missing[0]}: see `penstock doctor`"
        )
