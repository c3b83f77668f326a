"""What stands in the way of using a model here: packages, a key, weights. Loads none of it and connects to nothing."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from .cards import HUB_MODELS, PROVIDERS
from .embedder import EmbeddingOptions, ModelCard, is_openai


@dataclass(frozen=True, slots=True)
class Missing:
    """``name``: of the extra, the setting or the folder; ``advice``: what to do."""

    kind: Literal["extra", "key", "weights"]
    name: str
    advice: str


def extra_of(card: ModelCard) -> str | None:
    """Return the extra that brings a model's packages, None when it needs none."""
    return PROVIDERS[card.provider].extra


def missing(card: ModelCard, options: EmbeddingOptions) -> list[Missing]:
    """Return what a model lacks here, in the order in which to see to it. Nothing: it can be tried."""
    found = []
    provider = PROVIDERS[card.provider]
    absent = [module for module in provider.modules if not _is_there(module)]
    if absent and provider.extra:
        advice = f"pip install 'penstock[{provider.extra}]'"
        found.append(Missing("extra", provider.extra, f"{advice} (not there: {', '.join(absent)})"))
    if card.provider == "openai" and is_openai(options) and not options.openai_api_key:
        advice = "set embedding.openai_api_key; or embedding.openai_base_url to an endpoint that wants none"
        found.append(Missing("key", "embedding.openai_api_key", advice))
    if card.name in HUB_MODELS:
        from .hub import directory_of, is_fetched  # noqa: PLC0415 imports numpy

        if not is_fetched(card, options.models_dir):
            directory = str(directory_of(card, options.models_dir))
            found.append(Missing("weights", directory, f"penstock models fetch {card.name}"))
    return found


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False
