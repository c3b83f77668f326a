"""From texts to vectors of unit length, by one of several providers. Only `openai` talks to anything outside."""

from .availability import Missing, extra_of, missing
from .embedder import DeclaredModel, Embedder, EmbeddingOptions, ModelCard, endpoint_of, is_openai, takes_orders
from .embedders import Embedders
from .registry import known_models, model_card, open_embedder
from .sizes import SETTING as DIMENSIONS_SETTING

__all__ = [
    "DIMENSIONS_SETTING",
    "DeclaredModel",
    "Embedder",
    "Embedders",
    "EmbeddingOptions",
    "Missing",
    "ModelCard",
    "endpoint_of",
    "extra_of",
    "is_openai",
    "known_models",
    "missing",
    "model_card",
    "open_embedder",
    "takes_orders",
]
