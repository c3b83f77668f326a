"""What every embedding provider is to the rest of the program. Knows none of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
OPENAI_URL = "https://api.openai.com/v1"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What is known of a model without loading it.

    ``input_limit_tokens``: how long a text may be as `Embedder.count_tokens` counts, ``None`` when any length is read.
    ``fingerprint``: of the weights or the endpoint behind the name; vectors with another one must not be mixed.
    ``price_per_million_tokens``: in US dollars, as its provider publishes it; 0 for what runs here, ``None``: unknown.
    ``query_prefix`` and ``passage_prefix``: what the embedder writes before a text, as the model was trained.
    ``shortest_dimensions``: a Matryoshka model (arXiv 2205.13147), whose vectors may be cut to so many dimensions or
    more, and scaled to length one again; ``None``: it may not be cut. ``full_dimensions``: what it makes, where
    ``dimensions`` are fewer; ``None``: as many.
    ``speed``: ``slow`` when an ingest waits for the model more than for anything else.
    ``requests_per_minute``, ``tokens_per_minute``: what its provider takes of everybody; ``None``: not known.
    """

    name: str
    provider: str
    dimensions: int
    input_limit_tokens: int | None
    metric: str = "cosine"
    fingerprint: str = ""
    price_per_million_tokens: float | None = 0.0
    query_prefix: str = ""
    passage_prefix: str = ""
    shortest_dimensions: int | None = None
    speed: Literal["fast", "slow"] = "slow"
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    full_dimensions: int | None = None

    @property
    def order_price_per_million_tokens(self) -> float | None:
        """What an order costs, which the provider has a day for: half, as OpenAI publishes it."""
        return None if self.price_per_million_tokens is None else self.price_per_million_tokens / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredModel:
    """What the settings say of a remote model that nobody here knows. Of a known one only ``dimensions`` counts."""

    dimensions: int | None = None
    shortest_dimensions: int | None = None
    input_limit_tokens: int | None = None
    price_per_million_tokens: float | None = None
    query_prefix: str = ""
    passage_prefix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingOptions:
    """How much an embedder may use, and where a remote one is. ``threads`` and ``batch_tokens`` are of one process.

    ``openai_max_texts`` and ``openai_max_tokens``: of one request; ``None``: what OpenAI takes, and what suits other
    endpoints. ``openai_batches``: whether it takes orders by OpenAI's Batch API; ``None``: if it is OpenAI itself.
    ``models_dir``: where the weights of hub models are.
    """

    threads: int = 1
    batch_tokens: int = 16_384
    timeout_s: float = 60.0
    openai_base_url: str | None = None
    openai_api_key: str | None = field(default=None, repr=False)
    openai_max_texts: int | None = None
    openai_max_tokens: int | None = None
    openai_batches: bool | None = None
    declared: DeclaredModel = DeclaredModel()
    models_dir: Path | None = None


def endpoint_of(options: EmbeddingOptions) -> str:
    """Return the URL at which remote models are asked."""
    return options.openai_base_url or OPENAI_URL


def is_openai(options: EmbeddingOptions) -> bool:
    """Say whether that is OpenAI itself, by whichever words it is named: its limits are known."""
    return endpoint_of(options).rstrip("/") == OPENAI_URL


def takes_orders(options: EmbeddingOptions) -> bool:
    """Say whether remote models take orders, as OpenAI does and other endpoints where the settings say so."""
    return is_openai(options) if options.openai_batches is None else options.openai_batches


class Embedder(Protocol):
    """A model ready for use. Several threads may call it at once. Weights are loaded by the first call that needs them.

    All vectors are float32 and of length one. Every method but ``close`` raises ProviderMisconfigured when the model
    cannot work at all, and ProviderUnavailable when it cannot now.
    """

    @property
    def card(self) -> ModelCard: ...

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        """Return float32[n, d], a vector per text.

        Raises:
            InputRejected: a text is longer than the model reads, or refused by it; nothing is ever truncated.
        """
        ...

    def embed_query(self, text: str) -> Vectors:
        """Return float32[d]. Raises InputRejected as `embed_passages` does."""
        ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the model's own tokens of each text, those not counted that the model adds itself."""
        ...

    def check(self) -> None:
        """Load the model and embed one word, so that what is wrong is known at the start."""
        ...

    def close(self) -> None:
        """Let go of threads and connections. The embedder is not used any more."""
        ...
