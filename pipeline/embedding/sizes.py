"""How many dimensions the vectors of a model have: its own, or fewer where it is a Matryoshka model. Loads nothing."""

from dataclasses import replace

from penstock.storage.limits import MAX_DIMENSIONS, MIN_DIMENSIONS

from ..errors import ProviderMisconfigured
from .cards import CARDS
from .embedder import DeclaredModel, ModelCard

SETTING = "embedding.openai_dimensions"
SHORTEST_SETTING = "embedding.openai_shortest_dimensions"


def may_have(card: ModelCard, dimensions: int) -> bool:
    """Say whether the model's vectors have so many dimensions, or may be cut to them."""
    if dimensions == card.dimensions:
        return True
    shortest = card.shortest_dimensions
    return shortest is not None and max(shortest, MIN_DIMENSIONS) <= dimensions <= card.dimensions


def resized(card: ModelCard, dimensions: int | None, *, told_by: str = "dimensions") -> ModelCard:
    """Return the card of a model whose vectors are cut to ``dimensions``; None: they are not cut.

    ``told_by``: what said so, for the error.

    Raises:
        ProviderMisconfigured: they cannot be cut, or not to so many.
    """
    if dimensions in {None, card.dimensions}:
        return card
    assert dimensions is not None
    if may_have(card, dimensions):
        return replace(card, dimensions=dimensions, full_dimensions=card.dimensions)
    if card.shortest_dimensions is None:
        advice = f"; {SHORTEST_SETTING} says to how many they may be cut" if card.name not in CARDS else ""
        cut = ", ".join(one.name for one in CARDS.values() if one.shortest_dimensions)
        raise _bad_dimensions(
            f"{card.name} makes vectors of {card.dimensions} dimensions, which cannot be cut to {dimensions}:"
            f" leave {told_by} out, or choose another model: those of {cut} can be cut{advice}"
        )
    raise _bad_dimensions(
        f"{card.name} makes vectors of {max(card.shortest_dimensions, MIN_DIMENSIONS)} to {card.dimensions} dimensions,"
        f" not of {dimensions}: set {told_by} to one of those"
    )


def remote_card(model: str, dimensions: int | None, declared: DeclaredModel) -> ModelCard:
    """Return the card of openai/<name>, whose vectors have ``dimensions``, or else those declared. Raises as `resized`.

    Of a model that nobody here knows, the declared dimensions are what it makes, or ``dimensions`` where none are.
    """
    told_by = SETTING if dimensions is None else "dimensions"
    wanted = dimensions or declared.dimensions
    if wanted is not None and not MIN_DIMENSIONS <= wanted <= MAX_DIMENSIONS:
        raise _bad_dimensions(
            f"{wanted} dimensions of {model} are not allowed: use {MIN_DIMENSIONS} to {MAX_DIMENSIONS}"
        )
    if model in CARDS:
        return resized(CARDS[model], wanted, told_by=told_by)
    if wanted is None:
        raise _bad_dimensions(f"The dimensions of {model} are not known: set {SETTING} to what it returns")
    full = declared.dimensions or wanted
    if declared.shortest_dimensions is not None and declared.shortest_dimensions > full:
        raise ProviderMisconfigured(
            f"The vectors of {model} have {full} dimensions, and may be cut to no fewer than"
            f" {declared.shortest_dimensions}: set {SHORTEST_SETTING} to {full} or less, or leave it out",
            setting=SHORTEST_SETTING,
        )
    card = ModelCard(
        model,
        "openai",
        full,
        declared.input_limit_tokens,
        price_per_million_tokens=declared.price_per_million_tokens,
        query_prefix=declared.query_prefix,
        passage_prefix=declared.passage_prefix,
        shortest_dimensions=declared.shortest_dimensions,
    )
    return resized(card, wanted, told_by=told_by)


def _bad_dimensions(message: str) -> ProviderMisconfigured:
    return ProviderMisconfigured(message, setting=SETTING)
