"""`penstock models`: which embedding models there are, what each is, and what it lacks here. Asks no server."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import Config, DataDir, Json
from .output import console, plain, print_json, table

if TYPE_CHECKING:
    from penstock.pipeline.embedding import ModelCard
    from penstock.settings.model import Settings

app = typer.Typer(name="models", help="List the embedding models, and fetch the weights of one.")


@app.callback(invoke_without_command=True)
def models(context: typer.Context, config: Config = None, data_dir: DataDir = None, as_json: Json = False) -> None:
    """List the embedding models: what each is, and what it lacks to be used here.

    embedding.model chooses one for new collections.
    """
    if context.invoked_subcommand is not None:
        return
    from penstock.settings.sources import load

    settings = load(config, {"data_dir": data_dir})
    found = [_described(card, settings) for card in _cards(settings)]
    if as_json:
        print_json({"models": found})
        return
    _show(found)


@app.command("fetch")
def fetch(
    model: Annotated[str, typer.Argument(help="Name of the model, as `penstock models` lists it.", show_default=False)],
    config: Config = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Download the weights of a fastembed or sentence-transformers model, in the revision that is pinned.

    They go to embedding.models_dir. No other command downloads anything.
    """
    from penstock.pipeline.embedding import hub
    from penstock.pipeline.embedding.cards import HUB_MODELS
    from penstock.settings import wiring
    from penstock.settings.providers import options_of
    from penstock.settings.sources import load

    from .exits import UsageError

    settings = load(config, {"data_dir": data_dir})
    if model not in HUB_MODELS:
        raise UsageError(f"{model!r} has no weights to fetch: choose one of {', '.join(HUB_MODELS)}")
    card = wiring.card_of(settings, model)
    if not as_json:
        console(stderr=True).print(f"fetching {HUB_MODELS[model].repository} …")
    directory = hub.fetch(card, options_of(settings).models_dir)
    print_json({"model": model, "directory": str(directory)}) if as_json else console().print(f"{model}: {directory}")


def _cards(settings: "Settings") -> "list[ModelCard]":
    """Return the known cards, and that of the settings' own model as the settings make it."""
    from penstock.pipeline.embedding import known_models
    from penstock.pipeline.errors import ProviderMisconfigured
    from penstock.settings import wiring

    cards = {card.name: card for card in known_models()}
    try:
        chosen = wiring.card_of(settings)
    except ProviderMisconfigured as error:
        console(stderr=True).print(f"[yellow]{error.setting}:[/] {plain(str(error))}")
    else:
        cards[chosen.name] = chosen
    return list(cards.values())


def _described(card: "ModelCard", settings: "Settings") -> dict[str, Any]:
    from penstock.pipeline.embedding import extra_of, missing
    from penstock.settings.providers import line_of, options_of
    from penstock.storage.rates import Rates

    lacks = missing(card, options_of(settings))
    line = line_of(settings, card)
    limits = line.expected.at_most(line.set) if card.provider == "openai" else Rates()
    return {
        "name": card.name,
        "provider": card.provider,
        "dimensions": card.dimensions,
        "shortest_dimensions": card.shortest_dimensions,
        "input_limit_tokens": card.input_limit_tokens,
        "usd_per_million_tokens": card.price_per_million_tokens,
        "query_prefix": card.query_prefix,
        "passage_prefix": card.passage_prefix,
        "speed": card.speed,
        "requests_per_minute": limits.requests,
        "tokens_per_minute": limits.tokens,
        "extra": extra_of(card),
        "chosen": card.name == settings.embedding.model,
        "available": not lacks,
        "missing": [asdict(one) for one in lacks],
    }


def _show(found: list[dict[str, Any]]) -> None:
    rows = table(
        "model", "dimensions", "reads", "price", "speed", "prefixes", "here", right=("dimensions", "reads", "price")
    )
    for one in found:
        rows.add_row(*_row(one))
    out = console()
    out.print(rows)
    advice: dict[tuple[str, str], list[str]] = {}
    for one in found:
        for lack in one["missing"]:
            advice.setdefault((lack["kind"], lack["advice"]), []).append(one["name"])
    for (kind, told), names in advice.items():
        out.print(f"[dim]{kind} of {plain(', '.join(names))}:[/] {plain(told)}")
    for one in found:
        if one["chosen"] and (told := _limits(one)):
            out.print(f"[dim]{plain(one['name'])} is asked at most {told} a minute, or what its endpoint says[/]")
    out.print("[dim]any other model of an endpoint that speaks OpenAI's protocol: openai/<name>[/]")


def _limits(one: dict[str, Any]) -> str:
    found = [(one[f"{noun}_per_minute"], noun) for noun in ("requests", "tokens")]
    return " and ".join(f"{limit:,} {noun}" for limit, noun in found if limit is not None)


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    dimensions, shortest = one["dimensions"], one["shortest_dimensions"]
    limit, price = one["input_limit_tokens"], one["usd_per_million_tokens"]
    lacks = ", ".join(lack["kind"] for lack in one["missing"])
    return (
        plain(one["name"]) + (" [cyan](chosen)[/]" if one["chosen"] else ""),
        f"{shortest:,} to {dimensions:,}" if shortest and shortest < dimensions else f"{dimensions:,}",
        "any length" if limit is None else f"{limit:,} tokens",
        "not known" if price is None else f"${price:.2f}/M" if price else "-",
        one["speed"],
        ", ".join(word for word in ("query", "passage") if one[f"{word}_prefix"]) or "-",
        f"[yellow]lacks {lacks}[/]" if lacks else "[green]ready[/]",
    )
