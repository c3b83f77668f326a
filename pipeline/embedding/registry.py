"""Which models there are, by name. Loads none of them and imports only the one that is asked for."""

import re

from penstock.storage.limits import MAX_DIMENSIONS, MIN_DIMENSIONS

from ..errors import ProviderMisconfigured
from .embedder import Embedder, EmbeddingOptions, ModelCard

_HASH = re.compile(r"hash(?:-([1-9]\d{1,3}))?")
_HASH_DIMENSIONS = 384

_MINILM = ModelCard("minilm", "minilm", 384, input_limit_tokens=254)  # 256 word pieces, two of them special
_STATIC = ModelCard("static", "static", 256, input_limit_tokens=None)
_OPENAI = {  # dimensions, US dollars per million tokens
    "text-embedding-3-small": (1536, 0.02),
    "text-embedding-3-large": (3072, 0.13),
    "text-embedding-ada-002": (1536, 0.10),
}
_OPENAI_LIMIT_TOKENS = 8191


def model_card(model: str, *, openai_dimensions: int | None = None) -> ModelCard:
    """Return what is known of ``model``: minilm, static, hash, hash-<dimensions> or openai/<name>. Loads nothing.

    ``openai_dimensions``: needed for a remote model that is not OpenAI's own; its input limit is then not known.

    Raises:
        ProviderMisconfigured: there is no such model, or its dimensions are not known or outside of what is stored.
    """
    if model in {"minilm", "static"}:
        return _MINILM if model == "minilm" else _STATIC
    if found := _HASH.fullmatch(model):
        dimensions = int(found[1] or _HASH_DIMENSIONS)
        if MIN_DIMENSIONS <= dimensions <= MAX_DIMENSIONS:
            return ModelCard(model, "hash", dimensions, input_limit_tokens=None)
    provider, _, name = model.partition("/")
    if provider == "openai" and name:
        return _openai_card(model, name, openai_dimensions)
    raise ProviderMisconfigured(
        f"There is no embedding model {model!r}: use minilm, static, hash, hash-<dimensions, {MIN_DIMENSIONS} to"
        f" {MAX_DIMENSIONS}> or openai/<model name>",
        setting="embedding.model",
    )


def open_embedder(model: str, options: EmbeddingOptions, *, dimensions: int | None = None) -> Embedder:
    """Return the embedder of ``model``. Weights are loaded when first needed; `Embedder.check` loads them now.

    ``dimensions``: of the vectors that are there already, whatever ``options`` say of new ones.

    Raises:
        ProviderMisconfigured: there is no such model, it has other dimensions, or what it needs is missing.
    """
    card = model_card(model, openai_dimensions=dimensions or options.openai_dimensions)
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
    from .remote import Remote  # noqa: PLC0415

    native, _ = _OPENAI.get(model.partition("/")[2], (None, None))
    return Remote(card, options, shortened=card.dimensions != native)


def _openai_card(model: str, name: str, dimensions: int | None) -> ModelCard:
    if dimensions is not None and not MIN_DIMENSIONS <= dimensions <= MAX_DIMENSIONS:
        raise ProviderMisconfigured(
            f"{dimensions} dimensions of {model} are not allowed: use {MIN_DIMENSIONS} to {MAX_DIMENSIONS}",
            setting="embedding.openai_dimensions",
        )
    if name in _OPENAI:
        native, price = _OPENAI[name]
        return ModelCard(model, "openai", dimensions or native, _OPENAI_LIMIT_TOKENS, price_per_million_tokens=price)
    if dimensions is None:
        raise ProviderMisconfigured(
            f"The dimensions of {model} are not known: set embedding.openai_dimensions to what it returns",
            setting="embedding.openai_dimensions",
        )
    return ModelCard(model, "openai", dimensions, None, price_per_million_tokens=None)
