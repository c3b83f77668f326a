"""How a collection's documents are cut, and what of it an embedding model allows. Cuts nothing."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InvalidChunking

Size = Annotated[int, Field(ge=4, le=100_000)]  # one character takes up to four tokens

# OpenAI's own "auto", for models that read that much.
_LARGE_SIZE_TOKENS, _LARGE_OVERLAP_TOKENS = 800, 400
# A small model's own tokens are fewer characters than ours: leave room, so that few chunks must be cut again.
_ROOM = 220 / 254
_OVERLAP = 1 / 8


class ChunkingConfig(BaseModel):
    """What a person asks for. Sizes are cl100k tokens; ``None`` means what suits the embedding model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["auto", "recursive", "tokens"] = "auto"
    size_tokens: Size | None = None
    overlap_tokens: Annotated[int, Field(ge=0)] | None = None


class ResolvedChunking(BaseModel):
    """What is done, every choice made. A collection keeps this, so that later defaults cannot change it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategy: Literal["recursive", "tokens"]
    size_tokens: Size
    overlap_tokens: Annotated[int, Field(ge=0)]


def resolve(config: ChunkingConfig, *, limit: int | None) -> ResolvedChunking:
    """Return ``config`` with its defaults chosen for a model that reads ``limit`` of its tokens (``None``: any number).

    Raises:
        InvalidChunking: the size exceeds the limit, or the overlap exceeds half the size.
    """
    check_size(config, input_limit=limit)
    size = config.size_tokens or _size_for(limit)
    overlap = config.overlap_tokens
    if overlap is None:
        overlap = _LARGE_OVERLAP_TOKENS if size == _LARGE_SIZE_TOKENS else round(size * _OVERLAP)
    if overlap > size // 2:
        raise InvalidChunking(
            f"overlap_tokens {overlap} is more than half of size_tokens {size}: use at most {size // 2}"
        )
    return ResolvedChunking(
        strategy="tokens" if config.strategy == "tokens" else "recursive", size_tokens=size, overlap_tokens=overlap
    )


def check_size(config: ChunkingConfig, *, input_limit: int | None, model: str | None = None) -> None:
    """Check an explicit size against the tokens a model reads, special ones not counted (``None``: no limit).

    Raises:
        InvalidChunking: the size exceeds the limit; the message names both, and the model.
    """
    if config.size_tokens is None or input_limit is None or config.size_tokens <= input_limit:
        return
    reader = f"the embedding model {model}" if model else "the embedding model"
    raise InvalidChunking(
        f"size_tokens {config.size_tokens} exceeds what {reader} reads: {input_limit} tokens;"
        f" use at most {input_limit}, or strategy auto without a size"
    )


def _size_for(limit: int | None) -> int:
    return _LARGE_SIZE_TOKENS if limit is None else max(4, min(_LARGE_SIZE_TOKENS, int(limit * _ROOM)))
