"""What can go wrong while computing. A new class only where the caller acts differently.

PipelineError
├── ParseError                this document cannot be read, whatever is tried again: fail it with its reason
├── InvalidChunking           the chunking settings contradict each other or the model: change them
├── InvalidFilter             a search filter is not well formed: change it
├── InvalidQuery              a search asks for what cannot be answered: change it
└── EmbeddingError
    ├── ProviderUnavailable   the provider did not answer or asked to wait: try again
    │   ├── RateLimited       it refused for its limits: everybody is to ask less
    │   └── ProviderHeld      it was not asked: this would exceed its limits, or it does not answer just now
    ├── NoOrders              it was asked to make vectors for less, which its provider does not: ask without
    ├── InputRejected         the provider refuses one text: fail its document, embed the others
    └── ProviderMisconfigured a setting is wrong or missing: stop, a person must act
"""

from functools import partial
from typing import Literal

from penstock.storage.rates import Told

_NOTHING = Told()

ParseCode = Literal[
    "empty",
    "too_large",
    "too_many_pages",
    "encrypted",
    "truncated",
    "mislabelled",
    "binary",
    "unsupported_type",
    "malformed",
    "no_text",
    "timeout",
]


class PipelineError(Exception):
    """Something cannot be computed from what was given."""


class ParseError(PipelineError):
    """Raised when a document cannot become text. ``code`` is for programs, ``message`` says what a person can do."""

    def __init__(self, code: ParseCode, message: str) -> None:
        super().__init__(code, message)  # both, so that the error survives pickling between processes
        self.code: ParseCode = code
        self.message = message

    def __str__(self) -> str:
        return self.message


class InvalidChunking(PipelineError):
    """Raised when chunk sizes contradict each other, or exceed what the embedding model reads."""


class InvalidFilter(PipelineError):
    """Raised when a search filter is not well formed; the message names the field."""


class InvalidQuery(PipelineError):
    """Raised when a search cannot be answered as asked; ``param`` is the part to change: query, vector, k or ef."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        return partial(InvalidQuery, param=self.param), self.args


class EmbeddingError(PipelineError):
    """Texts could not be turned into vectors."""


class ProviderUnavailable(EmbeddingError):
    """Raised when the provider failed for a while. ``retry_after_s`` is its own wish, ``None`` when it gave none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(ProviderUnavailable):
    """Raised when the provider takes no more for a while. ``told``: what it said of its limits."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, told: Told = _NOTHING) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.told = told


class ProviderHeld(ProviderUnavailable):
    """Raised instead of a call that would exceed the provider's limits, or that it would not answer."""


class NoOrders(EmbeddingError):
    """Raised when documents are to be embedded for less, and the model's provider takes no orders."""


class InputRejected(EmbeddingError):
    """Raised when the provider refuses one text: ``index`` is its place in the call, ``None`` when unknown."""

    def __init__(self, message: str, *, index: int | None = None) -> None:
        super().__init__(message)
        self.index = index


class ProviderMisconfigured(EmbeddingError):
    """Raised when the provider cannot work as configured; ``setting`` is the name of the setting to change."""

    def __init__(self, message: str, *, setting: str) -> None:
        super().__init__(message)
        self.setting = setting

    def __reduce__(self) -> tuple[object, ...]:
        return partial(ProviderMisconfigured, setting=self.setting), self.args
