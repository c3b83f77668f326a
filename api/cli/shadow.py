"""`penstock shadow`: the same questions to two generations of a collection, and whether the new one may take over."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .connection import connect
from .exits import ExitCode, UsageError
from .options import Json, Key, Tenant, Url
from .output import console, count, duration, plain, print_json, table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.table import Table

    from penstock.client.wire import ShadowReport, ShadowSide

OFF = "off"


def shadow(
    collection: Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)],
    old: Annotated[
        str | None, typer.Option("--old", help="Id of a generation; default: the one that is searched.")
    ] = None,
    new: Annotated[str | None, typer.Option("--new", help="Id of a generation; default: the newest other one.")] = None,
    queries: Annotated[int | None, typer.Option("--queries", min=1, help="Most questions to ask.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", min=1.0, help="Seconds that it may take.")] = None,
    min_overlap: Annotated[
        str | None, typer.Option("--min-overlap", help="Least mean overlap@10, 0 to 1; or off.", show_default=False)
    ] = None,
    min_rank_agreement: Annotated[
        str | None,
        typer.Option("--min-rank-agreement", help="Least mean rank agreement, 0 to 1; or off.", show_default=False),
    ] = None,
    max_ndcg_drop: Annotated[
        str | None, typer.Option("--max-ndcg-drop", help="How much nDCG@10 may fall; or off.", show_default=False)
    ] = None,
    max_slowdown: Annotated[
        str | None,
        typer.Option("--max-slowdown", help="How many times as long a search may take; or off.", show_default=False),
    ] = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Compare two generations of a collection, as a re-embedding does before it switches. Changes nothing.

    Exits with 3 when the new one would be refused. What is left out is as the server's settings of [shadow] have it.
    """
    given: dict[str, Any] = {"old": old, "new": new, "queries": queries, "timeout_s": timeout}
    asked = {name: value for name, value in given.items() if value is not None}
    asked |= thresholds(
        min_overlap=min_overlap,
        min_rank_agreement=min_rank_agreement,
        max_ndcg_drop=max_ndcg_drop,
        max_slowdown=max_slowdown,
    )
    with connect(url, key, tenant) as client:
        report = client.shadow_check(collection, **asked)
    print_json(report) if as_json else show_report(report)
    if not report.passed:
        raise typer.Exit(ExitCode.FINDINGS)


def thresholds(**given: str | None) -> dict[str, float | None]:
    """Return what was given as numbers; ``off`` is None, which means: not looked at. Raises UsageError."""
    return {name: _threshold(name, text) for name, text in given.items() if text is not None}


def show_report(report: "ShadowReport") -> None:
    """Write a report for people."""
    out = console()
    verdict = "[green]passed[/]" if report.passed else "[red]refused[/]"
    told = [f"{report.recorded:,} recorded searches"] if report.recorded else []
    told += [count(report.sampled, "sampled sentence")] if report.sampled else []
    told += [count(report.judged, "judged question")] if report.judged else []
    out.print(f"shadow check {verdict}: {', '.join(told) or 'no questions'}, in {duration(report.took_s)}")
    for reason in report.reasons:
        out.print(f"  [red]{plain(reason)}[/]")
    out.print(_sides(report))
    out.print(_agreement(report))
    for note in report.notes:
        out.print(f"[dim]{plain(note)}[/]")


def _threshold(name: str, text: str) -> float | None:
    if text == OFF:
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--{name.replace('_', '-')} {text}: write a number, or {OFF!r}") from None


def _sides(report: "ShadowReport") -> "Table":
    rows = table("", "old", "new", right=("old", "new"))
    lines: Sequence[tuple[str, Callable[[ShadowSide], str]]] = (
        ("model", lambda side: plain(side.model)),
        ("dimensions", lambda side: f"{side.dimensions:,}, {side.quantization}"),
        ("version", lambda side: f"{side.version:,}"),
        ("chunks", lambda side: f"{side.chunks:,}"),
        ("a search, p50", lambda side: _ms(side.latency.p50_ms)),
        ("a search, p95", lambda side: _ms(side.latency.p95_ms)),
        ("  of that, embedding", lambda side: _ms(side.latency.embedding_p50_ms)),
        (f"nDCG@{report.k}", lambda side: _share(side.ndcg)),
    )
    for label, told in lines:
        rows.add_row(f"[dim]{label}[/]", told(report.old), told(report.new))
    return rows


def _agreement(report: "ShadowReport") -> "Table":
    limits = report.thresholds
    rows = table("agreement", "mean", "least allowed", right=("mean", "least allowed"))
    rows.add_row(f"overlap@{report.k} of {report.compared}", _share(report.overlap), _share(limits.min_overlap))
    rows.add_row("  a tenth of the questions has at most", _share(report.least_overlap), "")
    rows.add_row("rank agreement (RBO, p 0.9)", _share(report.rank_agreement), _share(limits.min_rank_agreement))
    return rows


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
