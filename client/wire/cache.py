"""The cache of vectors: what it did for a tenant, or for all of them."""

from pydantic import Field

from .messages import Answer


class CacheUse(Answer):
    """Counts are the cache server's: without its data they begin anew."""

    hits: int = Field(description="texts whose vectors were there, or came from another worker meanwhile")
    misses: int = Field(description="texts that the model was given")
    damaged: int = Field(description="entries that were damaged; they were among the misses")
    saved_tokens: int = Field(description="tokens of the hits")
    saved_usd: float = Field(
        description="their price in US dollars when they were found; texts of models without a known price add nothing"
    )
    vectors: int = Field(description="how many are kept; those that tenants share are in no tenant's number")
    size_bytes: int = Field(description="memory that they take, rather a little too much than too little")
    evicted: int = Field(description="vectors that went because of the limit")
    since: float | None = Field(description="when counting began; null before the first look-up")

    @property
    def hit_rate(self) -> float | None:
        """The part of the texts looked up that was found; None before the first."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class CacheStatus(CacheUse):
    limit_bytes: int = Field(description="`embedding.cache_bytes` of the server that answers")
