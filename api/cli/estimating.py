"""`penstock ingest --estimate`: what it would take. Nothing is stored by it, and no collection is made."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .output import console, count, duration, money, plain, print_json, table
from .uploading import find_new

if TYPE_CHECKING:
    from rich.console import Console

    from penstock.client import Chunking, Penstock
    from penstock.client.wire import Estimate, Priority

    from .folders import Found
    from .uploading import Sending


def show_estimate(
    client: "Penstock",
    collection: str,
    files: "Sequence[Found]",
    metadata: Mapping[str, Any],
    sending: "Sending",
    notes: "Console",
    *,
    made: "tuple[str | None, Chunking | None]",
    priority: "Priority",
    as_json: bool,
) -> None:
    """Send what is new, to be looked at, and show what an ingest would take.

    ``made``: the model and chunking that were asked for.
    """
    from penstock.client import NotFound, Upload

    model, chunking = made
    new = list(files)
    with notes.status(f"reading {count(len(files), 'file')}") as status:

        def show(done: int = 0) -> None:
            status.update(f"looking: {sending.unchanged + done:,}/{count(sending.files, 'file')}")

        if not metadata:  # which the server compares, not this side
            try:
                new = find_new(client, collection, files, sending=sending, on_progress=show)
            except NotFound as error:
                if error.code != "unknown_collection":
                    raise
        uploads = [
            Upload(content=file.path, source=file.source, filename=file.path.name, metadata=metadata) for file in new
        ]
        found = None
        if uploads:
            terms: dict[str, Any] = {"model": model, "chunking": chunking, "priority": priority}
            found = client.estimate(collection, uploads, **terms, on_progress=show)
    told = _with_unchanged(found, sending, model=model)
    print_json(told) if as_json else _show(told, collection)


def _with_unchanged(found: "Estimate | None", sending: "Sending", *, model: str | None) -> "Estimate":
    """Return the estimate with the files that the server knew before they were sent."""
    from penstock.client.wire import Estimate

    if found is None:
        return Estimate(
            model=model or "",
            documents=sending.unchanged,
            unchanged=sending.unchanged,
            failed=0,
            chunks=0,
            chunks_reused=0,
            cache_hits=0,
            repeated=0,
            embedded=0,
            tokens=0,
            price_per_million_tokens=None,
            cost_usd=0.0,
            duration_s=0.0,
        )
    here = sending.unchanged
    return found.model_copy(update={"documents": found.documents + here, "unchanged": found.unchanged + here})


def _show(found: "Estimate", collection: str) -> None:
    out = console()
    rows = table("estimate for", collection)
    rows.add_row("documents", _documents(found))
    rows.add_row("chunks", f"{found.chunks:,}: {_chunks(found)}")
    rows.add_row("tokens", f"{found.tokens:,}")
    rows.add_row("cost", "not known" if found.cost_usd is None else money(found.cost_usd))
    rows.add_row("time", "not known yet" if found.duration_s is None else f"about {duration(found.duration_s)}")
    out.print(rows)
    for one in found.unreadable:
        out.print(f"[red]{plain(one.source)}[/]: {plain(one.reason)}")
    if found.cost_usd is None:
        out.print("the model's price is not known: set embedding.openai_usd_per_million_tokens")


def _documents(found: "Estimate") -> str:
    return f"{found.documents:,}: {found.unchanged:,} unchanged, {found.failed:,} that cannot be read"


def _chunks(found: "Estimate") -> str:
    known = f"{found.chunks_reused:,} unchanged, {count(found.cache_hits, 'cache hit')}, {found.repeated:,} repeated"
    return f"{known}, {found.embedded:,} to embed"
