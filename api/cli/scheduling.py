"""`penstock schedules add`: what runs again and again is told here, and read from the command line."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import timetables
from .arguments import parse_budget, parse_period, parse_quantization
from .connection import connect
from .exits import UsageError
from .options import Json, Key, Tenant, Url
from .output import console, print_json

if TYPE_CHECKING:
    from penstock.client.wire import ScheduleAction

Everything = Annotated[bool, typer.Option("--all", help="The installation's own schedules, which are of everything.")]


def add(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[COLLECTION] ACTION [FOLDER]",
            help="The collection (none with --all), then reembed, sync FOLDER, expire, merge or backup FOLDER.",
            show_default=False,
        ),
    ],
    cron: Annotated[
        str | None,
        typer.Option("--cron", help="Minute, hour, day of the month, month, day of the week: '0 3 * * *'."),
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", help="In place of --cron: from one time to the next: 90s, 30m, 6h, 7d.")
    ] = None,
    timezone: Annotated[str, typer.Option("--timezone", help="Whose clocks --cron means, such as Europe/Berlin.")] = (
        "UTC"
    ),
    jitter: Annotated[
        str | None, typer.Option("--jitter", help="Each time comes up to so much later, by chance: 10m.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="reembed: the model; default: the one that new collections have then.")
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option("--dimensions", min=1, help="reembed: shorter vectors, of Matryoshka models.")
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", min=4, help="reembed: cut anew: longest chunk in tokens.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option("--chunk-overlap", min=0, help="reembed: likewise: tokens repeated.")
    ] = None,
    quantization: Annotated[
        str | None, typer.Option("--quantization", help="reembed: none or int8, what large indexes are walked by.")
    ] = None,
    economy: Annotated[
        bool, typer.Option("--economy", help="reembed: for half the price, within a day, by the provider's Batch API.")
    ] = False,
    keep_former: Annotated[
        str | None,
        typer.Option(
            "--keep-former", help="reembed: how long the former generation stays: 6d; the next run needs it gone."
        ),
    ] = None,
    afresh: Annotated[bool, typer.Option("--afresh", help="reembed: also where nothing would be different.")] = False,
    force: Annotated[bool, typer.Option("--force", help="reembed: switch whatever the check says.")] = False,
    no_switch: Annotated[bool, typer.Option("--no-switch", help="reembed: build, check, and do not switch.")] = False,
    budget: Annotated[str | None, typer.Option("--budget", help="reembed: US dollars that each may cost.")] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", help="sync: what sources begin with; default: the folder's own name.")
    ] = None,
    delete_much: Annotated[
        bool, typer.Option("--delete-much", help="sync: delete what is gone from the folder, however much it is.")
    ] = False,
    keep: Annotated[int | None, typer.Option("--keep", min=1, help="backup: how many stay; default: all.")] = None,
    everything: Everything = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Make a schedule of a collection, or with --all one of everything.

    Folders are those of the machine that runs maintenance, and must lie below one that `schedules.sync_roots` or
    `schedules.backup_roots` allows.
    """
    collection, action, folder = _read(words, everything=everything)
    place = {"sync": "folder", "backup": "destination"}.get(action)
    if folder is not None and place is None:
        raise UsageError(f"{action} takes no folder: leave {folder!r} out")
    options: dict[str, Any] = {"prefix": prefix, "delete_much": delete_much, "keep": keep}
    options |= {"model": model, "afresh": afresh, "force": force, "no_switch": no_switch}
    options |= {"dimensions": dimensions, "quantization": parse_quantization(quantization), "economy": economy}
    options |= {"keep_s": None if keep_former is None else parse_period("--keep-former", keep_former)}
    options |= {} if budget is None else {"budget_usd": parse_budget("--budget", budget)}
    if chunk_size is not None or chunk_overlap is not None:
        options["chunking"] = {"size_tokens": chunk_size, "overlap_tokens": chunk_overlap}
    options |= {place: folder} if place is not None else {}
    with connect(url, key, tenant) as client:
        made = client.add_schedule(
            collection,
            action,
            cron=cron,
            every_s=None if every is None else parse_period("--every", every),
            timezone=timezone,
            jitter_s=0.0 if jitter is None else parse_period("--jitter", jitter),
            options=options,
        )
    if as_json:
        print_json(made)
        return
    console().print(
        f"{made.id}: {timetables.does(made)}, {timetables.cadence(made)}; next {timetables.next_time(made)}"
    )


def _read(words: list[str], *, everything: bool) -> "tuple[str | None, ScheduleAction, str | None]":
    """Return the collection, the action and the folder of a command line. Raises UsageError."""
    from typing import get_args

    from penstock.client.wire import ScheduleAction

    collection, rest = (None, words) if everything else (words[0], words[1:])
    known: tuple[ScheduleAction, ...] = get_args(ScheduleAction)
    action = next((one for one in known if rest and one == rest[0]), None)
    if action is None or len(rest) > 2:
        shape = "--all ACTION [FOLDER]" if everything else "COLLECTION ACTION [FOLDER]"
        raise UsageError(f"write {shape}, the action being one of {', '.join(known)}; given: {' '.join(words)}")
    return collection, action, rest[1] if len(rest) == 2 else None
