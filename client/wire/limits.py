"""What a provider of embeddings is asked at most."""

from pydantic import Field

from .messages import Answer


class LimitStatus(Answer):
    """A remote model that was asked within a day. Counts are the cache server's: without its data they begin anew."""

    model: str
    endpoint: str
    requests_per_minute: float | None = Field(description="null when no limit is known")
    tokens_per_minute: float | None = Field(description="null when no limit is known")
    percent: float = Field(
        description="how much of that is asked for now: less after the provider refused, or at first"
    )
    blocked_s: float = Field(description="how long nobody asks it, as it wished; 0 when it may be asked")
    granted: int = Field(description="calls that went at once")
    delayed: int = Field(description="calls that waited a moment")
    held: int = Field(description="calls that were put off: of a batch for later, of a search with an error")
    refused: int = Field(description="calls that the provider refused for its limits (429)")
