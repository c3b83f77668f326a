"""The command tree. Plain help on purpose: Rich's takes three times as long as everything else `--help` does."""

import os
from pathlib import Path
from typing import Annotated

import typer

from . import (
    backups,
    cache,
    changes,
    collections,
    config,
    dead_letters,
    doctor,
    documents,
    index,
    ingest,
    jobs,
    judgements,
    models,
    pausing,
    processes,
    queries,
    reembed,
    schedules,
    search,
    shadow,
    snapshots,
    status,
    sync,
    tenants,
    usage,
    webhooks,
)
from .exits import EPILOG
from .options import Config

app = typer.Typer(
    name="penstock",
    help="Ingest documents, and search them: a self-hosted, multi-tenant retrieval service.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"penstock {version('penstock')}")
        raise typer.Exit


@app.callback()
def options(
    config_file: Config = None,
    show_version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Ingest documents, and search them: a self-hosted, multi-tenant retrieval service."""
    del show_version  # handled by its callback
    if config_file is not None:
        os.environ["PENSTOCK_CONFIG"] = str(Path(config_file).absolute())


processes.register(app)
app.command("ingest")(ingest.ingest)
app.command("sync")(sync.sync)
app.command("search")(search.search)
app.command("shadow")(shadow.shadow)
app.command("status")(status.status)
app.command("cache")(cache.cache)
app.command("usage")(usage.usage)
app.command("pause")(pausing.pause)
app.command("resume")(pausing.resume)
app.command("reembed")(reembed.reembed)
app.command("doctor")(doctor.doctor)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
documents.app.command("delete")(changes.delete)
documents.app.command("update")(changes.update)
app.add_typer(changes.chunks)
for group in (
    collections,
    documents,
    dead_letters,
    index,
    jobs,
    queries,
    judgements,
    models,
    schedules,
    snapshots,
    tenants,
    webhooks,
    config,
):
    app.add_typer(group.app)
