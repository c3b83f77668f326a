"""`penstock backup` and `penstock restore`: all that an installation keeps, into a folder and back from it.

Like `doctor` they work on the catalog and the object store of the settings, without a server or beside a running one.
"""

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import parse_path
from .exits import ExitCode, UsageError
from .options import Config, DataDir, Json, Tenant
from .output import console, count, plain, print_json, size, table, when

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from penstock.settings.model import Settings
    from penstock.storage.backups import Backup, Scope
    from penstock.storage.catalog.engine import Catalog

Folder = Annotated[Path, typer.Argument(help="The folder of backups.", parser=parse_path, metavar="FOLDER")]


def backup(
    folder: Folder,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Only this collection; default: everything.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option("--keep", min=1, help="Remove the oldest of the same kind beyond so many.")
    ] = None,
    checked: Annotated[
        bool,
        typer.Option("--verify", help="Only read the backups that are there, and compare them with their checksums."),
    ] = False,
    listed: Annotated[bool, typer.Option("--list", help="Only list the backups that are there.")] = False,
    tenant: Tenant = "default",
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Back up everything that is kept, of one moment, while the service goes on. What is there already is not copied.

    Exit code 3 when objects that the catalog names are missing or damaged; all others are in the backup then.
    """
    from penstock.settings import wiring
    from penstock.settings.sources import load
    from penstock.storage.backups import Progress, make_backup

    from .doctor import opened_catalog

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name one for backups")
    if (listed or checked) and not folder.exists():
        raise UsageError(f"there is no folder {folder}: name one that `penstock backup` wrote to")
    if listed:
        _show_list(folder, as_json=as_json)
        return
    if checked:
        _verify(folder, as_json=as_json)
        return
    settings = load(config, {"data_dir": data_dir})
    with opened_catalog(settings) as catalog, _shown("looking", as_json=as_json) as show:
        progress = Progress()
        progress.go_on = lambda: show(f"copied {count(progress.copied, 'object')}, {size(progress.copied_bytes)}")
        made = make_backup(
            catalog,
            wiring.open_objects(settings),
            folder.absolute(),
            scope=_scope(catalog, tenant, collection),
            now=time.time(),
            keep=keep,
            progress=progress,
        )
    if as_json:
        print_json(_told(made) | {"copied": progress.copied, "copied_bytes": progress.copied_bytes})
    else:
        console().print(
            f"{made.id}: {count(sum(made.rows.values()), 'row')} and {count(made.object_count, 'object')} of "
            f"{size(made.size_bytes)}; {progress.copied:,} of them copied, {size(progress.copied_bytes)}"
        )
    if made.missing:
        told = f"{count(len(made.missing), 'object')} missing or damaged, such as {plain(', '.join(made.missing[:3]))}"
        console(stderr=True).print(f"[red]{told}[/]; see penstock doctor")
        raise typer.Exit(ExitCode.FINDINGS)


def restore(
    folder: Folder,
    backup_id: Annotated[
        str | None,
        typer.Option("--backup", help="Id of the backup; default: the newest of everything.", show_default=False),
    ] = None,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Bring a backup back into a new installation, with an empty catalog and an empty object store.

    Every object is compared with its checksum. When it was interrupted, the same command again does the rest.
    """
    from penstock.settings import wiring
    from penstock.settings.sources import load
    from penstock.storage.backups import restore as brought_back
    from penstock.storage.catalog.migrations import migrate

    settings = load(config, {"data_dir": data_dir})
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder: name one that `penstock backup` wrote to")
    catalog, done = wiring.open_catalog(settings), [0, 0]
    with _shown("reading", as_json=as_json) as show:

        def on_object(size_bytes: int) -> None:
            done[0], done[1] = done[0] + 1, done[1] + size_bytes
            show(f"restored {count(done[0], 'object')}, {size(done[1])}")

        try:
            migrate(catalog)
            found = brought_back(
                catalog, wiring.open_objects(settings), folder.absolute(), backup_id=backup_id, on_object=on_object
            )
        finally:
            catalog.dispose()
    if as_json:
        print_json(_told(found))
        return
    out = console()
    out.print(f"{found.id} of {when(found.created_at)} is restored: {count(found.object_count, 'object')}")
    out.print(f"[dim]{_next(settings, found)}[/]")


def _next(settings: "Settings", found: "Backup") -> str:
    from penstock.storage.backups.scope import EVERYTHING

    key = (
        "The admin key is that of the installation that was backed up: set PENSTOCK_ADMIN_KEY for another. "
        if found.scope == EVERYTHING
        else "`penstock up` makes the admin key anew, and prints it. "
    )
    return f"{key}`penstock doctor --data-dir {settings.data_dir}` looks at all that was restored."


def _scope(catalog: "Catalog", tenant: str, collection: str | None) -> "Scope":
    from penstock.storage.backups import Scope
    from penstock.storage.catalog.collections import get_collection
    from penstock.storage.ids import TenantId

    if collection is None:
        return Scope()
    return Scope(TenantId(tenant), get_collection(catalog, tenant=TenantId(tenant), name=collection, counted=False).id)


def _show_list(folder: Path, *, as_json: bool) -> None:
    from penstock.storage.backups import Place

    found = Place(folder.absolute()).list()
    if as_json:
        print_json([_told(one) for one in found])
        return
    rows = table("backup", "made", "of", "objects", "size", "missing", right=("objects", "size", "missing"))
    for one in found:
        counts = (f"{one.object_count:,}", size(one.size_bytes), f"{len(one.missing):,}")
        rows.add_row(one.id, when(one.created_at), one.scope, *counts)
    console().print(rows if found else f"there are no backups in {plain(str(folder))}")


def _verify(folder: Path, *, as_json: bool) -> None:
    from penstock.storage.backups import verify

    done = [0, 0]
    with _shown("reading", as_json=as_json) as show:

        def on_object(size_bytes: int) -> None:
            done[0], done[1] = done[0] + 1, done[1] + size_bytes
            show(f"read {count(done[0], 'object')}, {size(done[1])}")

        bad = verify(folder.absolute(), on_object=on_object)
    if as_json:
        print_json({"objects": done[0], "size_bytes": done[1], "bad": bad})
    elif bad:
        told = f"{count(len(bad), 'object')} missing or damaged, such as {plain(bad[0])}"
        console().print(f"[red]{told}[/]; the next backup copies what is still needed again")
    else:
        console().print(f"[green]everything is there and right[/]: {count(done[0], 'object')}, {size(done[1])}")
    if bad:
        raise typer.Exit(ExitCode.FINDINGS)


def _told(made: "Backup") -> dict[str, object]:
    from dataclasses import asdict

    return {name: value for name, value in asdict(made).items() if name not in ("files", "format")}


@contextmanager
def _shown(what: str, *, as_json: bool) -> "Iterator[Callable[[str], None]]":
    """Give what shows how far it is: nothing where programs read."""
    if as_json:
        yield lambda _text: None
        return
    with console(stderr=True).status(what) as status:
        yield status.update
