"""`penstock reembed`: embed a collection again, with another model or cut otherwise, while it serves."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from .arguments import parse_budget, parse_new_budget
from .connection import connect
from .exits import ExitCode, UsageError
from .options import Json, Key, Tenant, Timeout, Url
from .output import console, print_json
from .reembedding import follow, show

if TYPE_CHECKING:
    from penstock.client import Penstock
    from penstock.client.wire import Chunking, Quantization, Reembedding


class Stored(StrEnum):
    none = "none"
    int8 = "int8"


def _flag(name: str, told: str) -> bool:
    option: bool = typer.Option(False, name, help=told)
    return option


def reembed(
    collection: Annotated[str, typer.Argument(help="Collection to embed again.")] = "default",
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Model, by a name that `penstock models` lists.")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", min=1, help="Shorter vectors, of Matryoshka models.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", min=4, help="Cut documents anew: longest chunk in tokens.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option("--chunk-overlap", min=0, help="Likewise: tokens repeated from the chunk before.")
    ] = None,
    quantization: Annotated[
        Stored | None, typer.Option("--quantization", help="What large indexes are walked by.")
    ] = None,
    keep_s: Annotated[
        float | None, typer.Option("--keep", min=0, help="Seconds to keep the former generation after the switch.")
    ] = None,
    no_switch: bool = _flag("--no-switch", "Wait for `--switch` when the check has passed."),
    force: bool = _flag("--force", "Switch whatever the check says."),
    afresh: bool = _flag("--afresh", "Also where model and chunking would be the same."),
    economy: bool = _flag("--economy", "Embed for half the price, within a day, by the provider's Batch API."),
    budget: Annotated[
        str | None, typer.Option("--budget", help="US dollars that it may cost in all; it waits before it costs more.")
    ] = None,
    new_budget: Annotated[
        str | None, typer.Option("--set-budget", help="Change that, or 'none'; one that waits for money goes on.")
    ] = None,
    status: bool = _flag("--status", "Show how far it is."),
    pause: bool = _flag("--pause", "Copy nothing more until `--resume`."),
    resume: bool = _flag("--resume", "Go on; try again what failed."),
    cancel: bool = _flag("--cancel", "End it before the switch; the collection stays as it is."),
    check: bool = _flag("--check", "Compare both generations once more."),
    switch: bool = _flag("--switch", "Let the new generation take over; with --force, although it was refused."),
    rollback: bool = _flag("--rollback", "Let the former generation take over again, with all that came since."),
    drop: bool = _flag("--drop", "Let the generation go that does not serve."),
    wait: bool = _flag("--wait", "Wait until it rests or stands still, and show how far it is."),
    timeout_s: Timeout = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Embed a collection again, with another model or cut otherwise, while it serves.

    Another generation is built beside the one that serves; new documents go to both. When everything is copied, both
    are asked the same questions; if the new one passes, it takes over, in one moment. The former one follows it for a
    while, so that --rollback takes a moment too.
    """
    asked = {"status": status, "pause": pause, "resume": resume, "cancel": cancel, "check": check, "switch": switch}
    asked |= {"rollback": rollback, "drop": drop, "set-budget": new_budget is not None}
    chosen = [name for name, wanted in asked.items() if wanted]
    building = (model, dimensions, chunk_size, chunk_overlap, quantization, keep_s, budget)
    _check(chosen, building=any(one is not None for one in building) or no_switch or afresh or economy)
    with connect(url, key, tenant) as client:
        if not chosen:
            found = client.reembed(
                collection,
                model=model,
                dimensions=dimensions,
                chunking=_chunking(chunk_size, chunk_overlap),
                quantization=_stored(quantization),
                switch=not no_switch,
                force=force,
                afresh=afresh,
                economy=economy,
                budget_usd=None if budget is None else parse_budget("--budget", budget),
                keep_s=keep_s,
            )
        else:
            found = _asked(client, collection, chosen[0], force=force, budget=new_budget)
        if wait:
            found = follow(client, collection, notes=console(stderr=True), timeout_s=timeout_s)
    print_json(found) if as_json else show(found, collection)
    if found.state == "refused" or found.error is not None:
        raise typer.Exit(ExitCode.FINDINGS)


def _check(chosen: list[str], *, building: bool) -> None:
    if len(chosen) > 1:
        raise UsageError(f"--{chosen[0]} and --{chosen[1]} contradict each other: give one of them")
    if chosen and building:
        raise UsageError(
            f"--{chosen[0]} is about a re-embedding that was begun: give no model, chunking or terms with it"
        )


def _asked(client: "Penstock", collection: str, what: str, *, force: bool, budget: str | None) -> "Reembedding":
    if what == "switch":
        return client.switch_generations(collection, force=force)
    if force:
        raise UsageError("--force goes with --switch, or with what begins a re-embedding")
    if budget is not None:
        return client.set_reembedding_budget(collection, parse_new_budget("--set-budget", budget))
    return {
        "status": client.reembedding,
        "pause": client.pause_reembedding,
        "resume": client.resume_reembedding,
        "cancel": client.cancel_reembedding,
        "check": client.check_reembedding,
        "rollback": client.return_to_former,
        "drop": client.let_former_go,
    }[what](collection)


def _chunking(size: int | None, overlap: int | None) -> "Chunking | None":
    from penstock.client.wire import Chunking

    return None if size is None and overlap is None else Chunking(size_tokens=size, overlap_tokens=overlap)


def _stored(quantization: Stored | None) -> "Quantization | None":
    return None if quantization is None else quantization.value
