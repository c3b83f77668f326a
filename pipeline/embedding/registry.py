"""Which models there are, by name. Loads none of them and imports only the one that is asked for."""

import re
from collections.abc import Callable
from dataclasses import replace

from penstock.storage.limits import MAX_DIMENSIONS, MIN_DIMENSIONS

from ..errors import ProviderMisconfigured
from .cards import CARDS
from .embedder import DeclaredModel, Embedder, EmbeddingOptions, ModelCard
from .traffic import Traffic

_HASH = re.compile(r"hash-([1-9]\d{1,3})")
_NOTHING = DeclaredModel()


def known_models() -> list[ModelCard]:
    """Return the cards of the models that are known by name; ``hash-<dimensions>`` and other remote ones go beside."""
    return list(CARDS.values())


def model_card(model: str, *, openai_dimensions: int | None = None, declared: DeclaredModel = _NOTHING) -> ModelCard:
    """Return what is known of ``model``, by one of the names of `known_models`, hash-<dimensions> or openai/<name>.

    ``openai_dimensions``, or else those ``declared``: needed for a remote model that nobody here knows.

    Raises:
        ProviderMisconfigured: there is no such model, or its dimensions are not known, not its own, or outside of what
            is stored.
    """
    if model.startswith("openai/") and model != "openai/":
        return _remote_card(model, openai_dimensions or declared.dimensions, declared)
    if model in CARDS:
        return CARDS[model]
    if found := _HASH.fullmatch(model):
        dimensions = int(found[1])
        if MIN_DIMENSIONS <= dimensions <= MAX_DIMENSIONS:
            return replace(CARDS["hash"], name=model, dimensions=dimensions)
    local = ", ".join(name for name in CARDS if not name.startswith("openai/"))
    raise ProviderMisconfigured(
        f"There is no embedding model {model!r}: use {local}, hash-<dimensions, {MIN_DIMENSIONS} to"
        f" {MAX_DIMENSIONS}> or openai/<model name>; `penstock models` lists them",
        setting="embedding.model",
    )


def open_embedder(
    model: str,
    options: EmbeddingOptions,
    *,
    dimensions: int | None = None,
    traffic: Callable[[ModelCard], Traffic] | None = None,
) -> Embedder:
    """Return the embedder of ``model``. Weights are loaded when first needed; `Embedder.check` loads them now.

    ``dimensions``: of the vectors that are there already, whatever ``options`` say of new ones. ``traffic``: makes what
    the requests of a remote model go through; by default they are not held back.

    Raises:
        ProviderMisconfigured: there is no such model, it has other dimensions, or what it needs is missing.
    """
    card = model_card(model, openai_dimensions=dimensions, declared=options.declared)
    if dimensions not in {None, card.dimensions}:
        raise ProviderMisconfigured(
            f"The model {model} makes vectors of {card.dimensions} dimensions, and those that are there have"
            f" {dimensions}: make a new collection",
            setting="embedding.model",
        )
    if card.provider == "minilm":
        from .minilm import MiniLM  # noqa: PLC0415

        return MiniLM(card, options)
    if card.provider == "static":
        from .static import Static  # noqa: PLC0415

        return Static(card)
    if card.provider == "hash":
        from .hashing import Hashing  # noqa: PLC0415

        return Hashing(card)
    if card.provider == "openai":
        from .remote import Remote  # noqa: PLC0415

        known = CARDS.get(model)
        shortened = known is not None and card.dimensions != known.dimensions
        return Remote(card, options, shortened=shortened, traffic=traffic(card) if traffic is not None else None)
    from .hub import open_hub_model  # noqa: PLC0415

    return open_hub_model(card, options)


def _remote_card(model: str, dimensions: int | None, declared: DeclaredModel) -> ModelCard:
    if dimensions is not None and not MIN_DIMENSIONS <= dimensions <= MAX_DIMENSIONS:
        raise _bad_dimensions(
            f"{dimensions} dimensions of {model} are not allowed: use {MIN_DIMENSIONS} to {MAX_DIMENSIONS}"
        )
    if model in CARDS:
        return _resized(CARDS[model], dimensions)
    if dimensions is None:
        raise _bad_dimensions(
            f"The dimensions of {model} are not known: set embedding.openai_dimensions to what it returns"
        )
    return ModelCard(
        model,
        "openai",
        dimensions,
        declared.input_limit_tokens,
        price_per_million_tokens=declared.price_per_million_tokens,
        query_prefix=declared.query_prefix,
        passage_prefix=declared.passage_prefix,
    )


def _resized(card: ModelCard, dimensions: int | None) -> ModelCard:
    if dimensions in {None, card.dimensions}:
        return card
    assert dimensions is not None
    if card.shortest_dimensions is None:
        raise _bad_dimensions(
            f"{card.name} makes vectors of {card.dimensions} dimensions, which cannot be cut to {dimensions}:"
            f" leave embedding.openai_dimensions out, or choose another embedding.model"
        )
    if not card.shortest_dimensions <= dimensions <= card.dimensions:
        raise _bad_dimensions(
            f"{card.name} makes vectors of {card.shortest_dimensions} to {card.dimensions} dimensions, not of"
            f" {dimensions}: set embedding.openai_dimensions to one of those"
        )
    return replace(card, dimensions=dimensions)


def _bad_dimensions(message: str) -> ProviderMisconfigured:
    return ProviderMisconfigured(message, setting="embedding.openai_dimensions")
