"""Options that several commands share, so that they are named and explained the same everywhere."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="PENSTOCK_URL",
        help="Server to talk to; default: the one that runs on this machine, else http://127.0.0.1:7700.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="PENSTOCK_API_KEY",
        help="API key; default: the one that `penstock up` keeps in the data directory.",
        show_default=False,
    ),
]
Tenant = Annotated[str, typer.Option("--tenant", envvar="PENSTOCK_TENANT", help="Tenant to act for.")]
Collection = Annotated[str, typer.Option("--collection", "-c", help="Collection to act on.")]
DocumentName = Annotated[
    str, typer.Argument(help="Id or source, as `penstock documents list` shows them.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, on standard output.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="PENSTOCK_CONFIG", help="Settings file; default: penstock.toml, if there is one."),
]
DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Directory of everything this installation keeps (data_dir).")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most rows to list.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
MinToken = Annotated[
    str | None,
    typer.Option(
        "--min-token", help="Wait until the version of this token is there: jobs and searches give one with --json."
    ),
]
Timeout = Annotated[float | None, typer.Option("--timeout", min=0.0, help="Seconds to wait at most; then exit 5.")]
FILTERED = "metadata, $document_id, $source, $title, $media_type, and the times $event_time, $ingested_at, $expires_at"
METADATA_VALUES = (
    """A value is JSON where it can be (5, true, ["a"], {"b": 1}), else text; text at all events: 'x="5"'."""
)
