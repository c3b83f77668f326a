"""Which models there are, by name. Loads none of them and imports only the one that is asked for."""

import re
from collections.abc import Callable
from dataclasses import replace

from penstock.storage.limits import MAX_DIMENSIONS, MIN_DIMENSIONS

from ..errors import ProviderMisconfigured
from .cards import CARDS
from .embedder import DeclaredModel, Embedder, EmbeddingOptions, ModelCard
from .sizes import may_have, remote_card, resized
from .traffic import Traffic
from .truncated import truncated

_HASH = re.compile(r"hash-([1-9]\d{1,3})")
_NOTHING = DeclaredModel()


def known_models() -> list[ModelCard]:
    """Return the cards of the models that are known by name; ``hash-<dimensions>`` and other remote ones go beside."""
    return list(CARDS.values())


def model_card(model: str, *, dimensions: int | None = None, declared: DeclaredModel = _NOTHING) -> ModelCard:
    """Return what is known of ``model``, by one of the names of `known_models`, hash-<dimensions> or openai/<name>.

    ``dimensions``: to which its vectors are cut, of a Matryoshka model only. Of a remote one they are otherwise those
    ``declared``, which a model needs that nobody here knows.

    Raises:
        ProviderMisconfigured: there is no such model, or its dimensions are not known, not its own, or outside of what
            is stored.
    """
    if model.startswith("openai/") and model != "openai/":
        return remote_card(model, dimensions, declared)
    return resized(_local_card(model), dimensions)


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
    card = _card_of_vectors(model, options, dimensions)
    full = card.full_dimensions
    if full is None or (card.provider == "openai" and model in CARDS):  # OpenAI cuts its own, when it is asked to
        return _opened(card, options, traffic)
    return truncated(_opened(replace(card, dimensions=full, full_dimensions=None), options, traffic), card)


def _opened(card: ModelCard, options: EmbeddingOptions, traffic: Callable[[ModelCard], Traffic] | None) -> Embedder:
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

        shortened = card.full_dimensions is not None
        return Remote(card, options, shortened=shortened, traffic=traffic(card) if traffic is not None else None)
    from .hub import open_hub_model  # noqa: PLC0415

    return open_hub_model(card, options)


def _card_of_vectors(model: str, options: EmbeddingOptions, dimensions: int | None) -> ModelCard:
    """Return the card of a model whose vectors are there already, with so many dimensions."""
    declared = options.declared
    if dimensions is not None and declared.shortest_dimensions is None:
        declared = replace(declared, dimensions=dimensions)  # whatever is declared of new ones
    if dimensions is None or model.startswith("openai/"):
        return model_card(model, dimensions=dimensions, declared=declared)
    card = _local_card(model)
    if not may_have(card, dimensions):
        raise ProviderMisconfigured(
            f"The model {model} makes vectors of {card.dimensions} dimensions, and those that are there have"
            f" {dimensions}: make a new collection",
            setting="embedding.model",
        )
    return resized(card, dimensions)


def _local_card(model: str) -> ModelCard:
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
