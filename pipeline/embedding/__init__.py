"""From texts to vectors of unit length, by one of several providers. Only `openai` talks to anything outside."""

from .embedder import Embedder, EmbeddingOptions, ModelCard
from .embedders import Embedders
from .registry import model_card, open_embedder

__all__ = ["Embedder", "Embedders", "EmbeddingOptions", "ModelCard", "model_card", "open_embedder"]
