"""Who pays for calls of a provider, as an embedder sees it. Knows no price, no budget and no tenant."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .embedder import Embedder, ModelCard, Vectors

if TYPE_CHECKING:
    from penstock.storage.catalog.collections import CollectionInfo
    from penstock.storage.costs import SearchCosts


class Payer(Protocol):
    """Somebody who pays. Several threads may ask at once."""

    @property
    def account(self) -> str:
        """Whose money it is: what one account has paid for is not given to another."""
        ...

    def reserve(self, tokens: int) -> None:
        """Set money aside before calls are made for so many tokens together; raises what forbids them."""
        ...

    def paid(self, tokens: int, *, answered: bool = True) -> None:
        """Take note of one call that was paid for, or may have been: then it was not ``answered``."""
        ...


class Unbilled:
    """Nobody pays: a check of the provider is no tenant's."""

    account = ""

    def reserve(self, tokens: int) -> None:
        pass

    def paid(self, tokens: int, *, answered: bool = True) -> None:
        pass


@runtime_checkable
class Billable(Protocol):
    """An embedder that knows which of its calls are paid for."""

    def billed_to(self, payer: Payer) -> Embedder:
        """Return the same embedder, whose calls ``payer`` pays. It is closed with the first one."""
        ...


def billed(embedder: Embedder, payer: Payer) -> Embedder:
    """Return ``embedder`` so that ``payer`` hears of each call."""
    return embedder.billed_to(payer) if isinstance(embedder, Billable) else Counted(embedder, payer)


def billed_for_searches(
    embedder_for: Callable[[str, int], Embedder], costs: "SearchCosts", collection: "CollectionInfo"
) -> Callable[[str, int], Embedder]:
    """Return ``embedder_for`` for searches in ``collection``, which its tenant pays."""

    def embedder(model: str, dimensions: int) -> Embedder:
        found = embedder_for(model, dimensions)
        price = found.card.price_per_million_tokens
        return billed(found, costs.payer(collection.tenant_id, collection.id, model=model, price=price))

    return embedder


@dataclass(frozen=True)
class Counted:
    """A model that runs here: each method is a call, and nothing has to be reserved for it."""

    inner: Embedder
    payer: Payer

    @property
    def card(self) -> ModelCard:
        return self.inner.card

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        vectors = self.inner.embed_passages(texts)
        self.payer.paid(sum(self.inner.count_tokens(texts)))
        return vectors

    def embed_query(self, text: str) -> Vectors:
        vector = self.inner.embed_query(text)
        self.payer.paid(self.inner.count_tokens([text])[0])
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return self.inner.count_tokens(texts)

    def check(self) -> None:
        self.inner.check()

    def close(self) -> None:
        self.inner.close()
