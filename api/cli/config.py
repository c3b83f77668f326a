"""Settings for people: what they are and where from (`show`), and whether this machine can run with them (`check`)."""

import json
from typing import TYPE_CHECKING

import typer

from .options import Config, DataDir, Json
from .output import console, plain, print_json, table

if TYPE_CHECKING:
    from .checks import Finding

app = typer.Typer(name="config", help="Show the settings, and check that they work.")


@app.command("show")
def show(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Show every setting, its value and where the value came from. Secrets are masked."""
    from penstock.settings.sources import explain, load

    explained = explain(load(config, {"data_dir": data_dir}))
    if as_json:
        print_json({entry.key: {"value": entry.value, "source": entry.origin} for entry in explained})
        return
    rows = table("setting", "value", "source", "meaning")
    for entry in explained:
        value = "-" if entry.value is None else json.dumps(entry.value, ensure_ascii=False)
        style = "dim" if entry.origin == "default" else "bold"
        rows.add_row(
            f"[{style}]{entry.key}[/]", f"[{style}]{plain(value)}[/]", plain(entry.origin), plain(entry.description)
        )
    console().print(rows)


@app.command("check")
def check(config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """Check that the settings are valid and that everything they name can be reached. Exit code 1 if not."""
    from penstock.settings.sources import load

    from .checks import run_checks

    findings = list(run_checks(load(config, {"data_dir": data_dir})))
    if as_json:
        print_json(
            {"ok": all(finding.ok for finding in findings), "checks": [vars(finding) for finding in findings]},
        )
    else:
        _show_findings(findings)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(1)


def _show_findings(findings: list["Finding"]) -> None:
    rows = table("", "what", "found", "what to do")
    for finding in findings:
        mark = "[green]ok[/]" if finding.ok else "[red]fail[/]"
        rows.add_row(mark, finding.what, plain(finding.found), plain(finding.advice))
    console().print(rows)
