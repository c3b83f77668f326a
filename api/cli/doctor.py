"""`penstock doctor`: whether everything that is kept is there and right, from the settings and not over HTTP.

It opens the catalog and the object store itself, so it needs no server, and may run beside one.
"""

import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from .exits import ExitCode, UsageError
from .options import Config, DataDir, Json
from .output import console, count, plain, print_json, size

if TYPE_CHECKING:
    from penstock.settings.model import Settings
    from penstock.storage.catalog.engine import Catalog
    from penstock.storage.inspection.examination import Examination, Progress
    from penstock.storage.inspection.findings import Finding
    from penstock.storage.inspection.repairs import Repair
    from penstock.storage.objects.store import ObjectStore

STYLES = {"error": "red", "warning": "yellow", "note": "dim"}

UNKNOWN = (
    "[dim]Not known any more: what embedding cost and the budgets of tenants, schedules, tags, jobs, failed documents, "
    "documents that were accepted and not indexed yet, collections that never published, and the admin key (`penstock "
    "up` makes one). `penstock doctor` looks at the files next.[/]"
)

OneTenant = Annotated[str | None, typer.Option("--tenant", help="Look at this tenant only; default: at all of them.")]
Rows = Annotated[
    int, typer.Option("--rows", min=0, help="How many rows of each graph to look for by their own vector; 0: all.")
]


def doctor(
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended safely, and say what was done.")
    ] = False,
    rebuild_catalog: Annotated[
        bool,
        typer.Option("--rebuild-catalog", help="Make an empty catalog again from the objects alone, and do no more."),
    ] = False,
    tenant: OneTenant = None,
    rows: Rows = 1_000,
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Check everything that is kept: every file, the index against the ledger, packs, orphans.

    Works on the catalog and the object store of the settings, without a server or beside a running one. Without
    --repair it changes nothing. Exit code 3 when something is left to see to; 1 when it could not look.
    """
    from penstock.settings import wiring
    from penstock.settings.sources import load

    settings = load(config, {"data_dir": data_dir})
    if rebuild_catalog:
        if repair or tenant:
            raise UsageError("--rebuild-catalog makes the whole catalog: leave out --repair and --tenant")
        _rebuild(settings, as_json=as_json)
        return
    with opened_catalog(settings) as catalog, _progress(shown=not as_json) as progress:
        objects = wiring.open_objects(settings)
        found = _examined(catalog, objects, progress, tenant=tenant, rows=rows)
        repairs = list(_repaired(catalog, objects, found)) if repair and not found.clean else []
        left = _examined(catalog, objects, progress, tenant=tenant, rows=rows, former=found) if repairs else found
    if as_json:
        told = {"findings": _described(found.findings), "checked": found.checked()}
        mended = {"repairs": [vars(one) for one in repairs], "left": _described(left.findings)} if repair else {}
        print_json({"clean": left.clean, **told, **mended})
    else:
        _show(found)
        _show_repairs(repairs, left)
    if not left.clean:
        raise typer.Exit(ExitCode.FINDINGS)


def _rebuild(settings: "Settings", *, as_json: bool) -> None:
    from penstock.settings import wiring
    from penstock.settings.errors import MissingComponent
    from penstock.storage.catalog.migrations import migrate
    from penstock.storage.inspection.findings import is_clean
    from penstock.storage.inspection.lineages import find_tenants
    from penstock.storage.inspection.rebuilding import rebuild_catalog

    objects = wiring.open_objects(settings)
    if not find_tenants(objects):  # most often a wrong name, which is to leave no catalog behind
        place = settings.objects.url or settings.objects.directory or settings.data_dir / "objects"
        raise MissingComponent(
            f"{place} holds no objects from which a catalog could be made again: name the installation with --data-dir "
            "or --config"
        )
    catalog = wiring.open_catalog(settings)
    try:
        migrate(catalog)
        made = rebuild_catalog(catalog, objects, now=time.time())
    finally:
        catalog.dispose()
    if as_json:
        print_json({"rebuilt": made.counts(), "findings": _described(made.findings)})
    else:
        for finding in made.findings:
            _show_finding(finding)
        counts = (count(number, name.removesuffix("s")) for name, number in made.counts().items())
        console().print(f"[green]the catalog was made again:[/] {', '.join(counts)}")
        console().print(UNKNOWN)
    if not is_clean(made.findings):
        raise typer.Exit(ExitCode.FINDINGS)


def _examined(
    catalog: "Catalog",
    objects: "ObjectStore",
    progress: "Progress",
    *,
    tenant: str | None,
    rows: int,
    former: "Examination | None" = None,
) -> "Examination":
    from penstock.storage.ids import TenantId
    from penstock.storage.inspection.examination import examine

    return examine(
        catalog,
        objects,
        tenant=TenantId(tenant) if tenant else None,
        now=time.time(),
        progress=progress,
        rows_per_graph=rows or None,
        former=former,
    )


def _repaired(catalog: "Catalog", objects: "ObjectStore", found: "Examination") -> "Iterator[Repair]":
    from penstock.storage.inspection.repairs import Repairer

    owner = f"doctor@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    return Repairer(catalog, objects, owner=owner, waiting=console(stderr=True).print).repair(found)


@contextmanager
def opened_catalog(settings: "Settings") -> "Iterator[Catalog]":
    """Give the catalog for the time of the block.

    Raises:
        MissingComponent: there is none yet, it was begun anew over objects that it does not know, or it lacks a table.
        Damaged: it is no database any more.
        Unsupported, Unavailable: its schema is another program's, or it does not answer.
    """
    from sqlalchemy.exc import DatabaseError

    from penstock.settings import wiring
    from penstock.settings.errors import MissingComponent
    from penstock.storage.catalog.migrations import check_schema

    from ..supervisor.installation import refuse_to_orphan

    path = settings.data_dir / "catalog.sqlite3"
    if settings.catalog_url is None and not path.exists():  # opening would make an empty one
        raise MissingComponent(
            f"there is no catalog at {path}: name the installation with --data-dir or --config, or, if the catalog is "
            "lost, make it again from the objects with --rebuild-catalog"
        )
    catalog = wiring.open_catalog(settings)
    try:
        refuse_to_orphan(settings, catalog)
        check_schema(catalog)
        yield catalog
    except DatabaseError as error:  # what may pass by itself was translated already
        raise MissingComponent(
            f"the catalog cannot be read: {error.orig or error}; restore it, or move it away and make it again from "
            "the objects with --rebuild-catalog"
        ) from error
    finally:
        catalog.dispose()


class _Unseen:
    """`Progress` that shows nothing."""

    def begin(self, total_bytes: int, total_rows: int) -> None:
        """Nothing to show."""

    def advance(self, size_bytes: int) -> None:
        """Nothing to show."""

    def searched(self, rows: int) -> None:
        """Nothing to show."""


@contextmanager
def _progress(*, shown: bool) -> "Iterator[Progress]":
    out = console(stderr=True)
    if not shown or not out.is_terminal:
        yield _Unseen()
        return
    from rich.console import Group
    from rich.live import Live
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    word, bar, left = TextColumn("{task.description:7}"), BarColumn(), TimeRemainingColumn()
    files = Bar(word, bar, DownloadColumn(), left, console=out, auto_refresh=False)
    graphs = Bar(word, bar, MofNCompleteColumn(), TextColumn("rows of graphs"), left, console=out, auto_refresh=False)
    reading, looking = files.add_task("reading", total=None), graphs.add_task("looking", total=None)

    class Shown:
        def begin(self, total_bytes: int, total_rows: int) -> None:
            files.update(reading, total=total_bytes)
            graphs.update(looking, total=total_rows, visible=total_rows > 0)

        def advance(self, size_bytes: int) -> None:
            files.advance(reading, size_bytes)

        def searched(self, rows: int) -> None:
            graphs.advance(looking, rows)

    with Live(Group(files, graphs), console=out, transient=True):
        yield Shown()


def _show(found: "Examination") -> None:
    out, checked = console(), found.checked()
    for finding in found.findings:
        _show_finding(finding)
    looked = ", ".join(
        count(checked[key], noun)
        for key, noun in (("tenants", "tenant"), ("versions", "version"), ("files", "file"), ("documents", "document"))
    )
    out.print(f"[dim]looked at {looked}; read {size(checked['size_bytes'])}[/]")
    if checked["rows_searched"]:
        out.print(f"[dim]looked for {count(checked['rows_searched'], 'row')} of graphs by their own vector[/]")
    if found.clean:
        out.print("[green]everything is there and right[/]")


def _show_repairs(repairs: "Sequence[Repair]", left: "Examination") -> None:
    out = console()
    for one in repairs:
        word = "[green]mended[/]" if one.done else "[red]not mended[/]"
        out.print(f"{word} {plain(one.object)} of tenant {one.tenant!r}: {plain(one.told)}")
    remaining = [finding for finding in left.findings if finding.severity != "note"]
    if repairs and remaining:
        out.print(f"{count(len(remaining), 'finding')} left:")
        for finding in remaining:
            _show_finding(finding)
    elif repairs:
        out.print("[green]nothing is left to see to[/]")


def _show_finding(finding: "Finding") -> None:
    from rich.padding import Padding

    out = console()
    style = STYLES[finding.severity]
    out.print(f"[{style}]{finding.severity}[/] {finding.check}: {plain(finding.object)}")
    out.print(Padding(plain(finding.problem), (0, 0, 0, 4), expand=False))
    out.print(Padding(f"[dim]→ {plain(finding.advice)}[/]", (0, 0, 0, 4), expand=False))


def _described(findings: "Sequence[Finding]") -> list[dict[str, object]]:
    return [finding.described() for finding in findings]
