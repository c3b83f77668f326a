"""How a re-embedding is shown, and followed until it rests."""

from typing import TYPE_CHECKING, Any

from .output import count, duration, money, plain, when
from .waiting import word_of

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Penstock
    from penstock.client.wire import Reembedding, ReembeddingSide

TOLD = {
    "copying": "is being copied",
    "checking": "is being compared with the one that serves",
    "ready": "passed its check, and waits for --switch",
    "refused": "did not pass its check: --switch --force, or --cancel",
    "switching": "is about to take over",
    "switched": "serves; the former one follows it",
    "returning": "gives way to the former one",
    "returned": "gave way to the former one, and follows it",
    "done": "serves; the other one was let go",
    "cancelled": "was dropped",
}


def follow(client: "Penstock", collection: str, *, notes: "Console", timeout_s: float | None = None) -> "Reembedding":
    """Return the re-embedding once it rests or stands still, with a line now and then. Raises Busy."""
    last: list[str] = []

    def tell(found: "Reembedding") -> None:
        line = progress(found)
        if [line] != last:
            notes.print(f"[dim]{line}[/]")
            last[:] = [line]

    return client.wait_for_reembedding(collection, timeout_s=timeout_s, on_progress=tell)


def progress(found: "Reembedding") -> str:
    """Return in one line how far it is."""
    share = f" of {found.chunks_total:,}" if found.chunks_copied <= found.chunks_total else ""
    told = f"{found.state}: {found.chunks_copied:,}{share} chunks copied"
    if found.paused_at is not None:
        return f"{told}; paused" if found.error is None else f"{told}; stands still: {plain(found.error)}"
    if found.held_up is not None:
        return f"{told}; {word_of(found.held_up)}: {plain(found.held_up.reason)}"
    return told


def show(found: "Reembedding", collection: str) -> None:
    """Print it for a person."""
    from .output import console

    out = console()
    built, former = _built(found)
    out.print(f"[bold]{collection}[/]: the generation of {_named(built)} {TOLD[found.state]}")
    out.print(f"instead of {_named(former)}; {progress(found)}")
    if told := _cost(found):
        out.print(told)
    if found.kept_until is not None:
        out.print(f"the one that does not serve is kept until {when(found.kept_until)}: --rollback, or --drop")
    if found.report is not None:
        out.print(_verdict(found.report))


def _cost(found: "Reembedding") -> str:
    """Return what it cost so far, and may cost; nothing where neither is."""
    if not found.embedded_tokens and found.budget_usd is None:
        return ""
    cost = "their price is not known" if found.cost_usd is None else money(found.cost_usd)
    may = "" if found.budget_usd is None else f" of {money(found.budget_usd)} that it may cost"
    return f"{found.embedded_tokens:,} tokens embedded: {cost}{may}"


def _built(found: "Reembedding") -> "tuple[ReembeddingSide, ReembeddingSide]":
    """Return the generation that was built, and the one that was there before."""
    swapped = found.state in ("switched", "returning", "done")
    return (found.serving, found.other) if swapped else (found.other, found.serving)


def _named(side: "ReembeddingSide") -> str:
    return f"{plain(side.model)} ({side.dimensions} dimensions, {count(side.chunks, 'chunk')})"


def _verdict(report: dict[str, Any]) -> str:
    """Return what the check found, in words."""
    told = "passed" if report["passed"] else "[red]refused[/]: " + "; ".join(map(plain, report["reasons"]))
    asked = report["recorded"] + report["sampled"]
    figures = f"{count(asked, 'question')} in {duration(report['took_s'])}"
    if report["overlap"] is not None:
        figures += f", overlap@{report['k']} {report['overlap']:.2f}, rank agreement {report['rank_agreement']:.2f}"
    before, after = report["old"], report["new"]
    if before["latency"]["p50_ms"] is not None and after["latency"]["p50_ms"] is not None:
        figures += f", median {before['latency']['p50_ms']:.1f} ms before and {after['latency']['p50_ms']:.1f} ms after"
    if before["ndcg"] is not None and after["ndcg"] is not None:
        figures += f", nDCG@{report['k']} {before['ndcg']:.3f} before and {after['ndcg']:.3f} after"
    return f"check: {told} ({figures})"
