"""A remote model: which texts go into which request, whose fault a refusal is, and what was paid for already.

It retries nothing: whoever calls knows when to try again. Single requests are `endpoint.py`'s.
"""

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from penstock.storage.errors import StorageError

from ..chunking import count_tokens
from ..errors import EmbeddingError, InputRejected, ProviderMisconfigured
from ..requests import in_requests
from .billing import Payer, Unbilled
from .embedder import EmbeddingOptions, ModelCard, Vectors, is_openai, takes_orders
from .endpoint import Endpoint
from .orders import OpenAIOrders, Provider
from .paid import PaidVectors
from .traffic import Call, Traffic
from .vectors import unit_rows

OPENAI_MAX_TEXTS, OPENAI_MAX_TOKENS = 2_048, 300_000  # of one request, as OpenAI documents it
MAX_TEXTS = 256  # of one request to another endpoint, which says nowhere how much it takes
KEPT_VECTORS = 4_096  # that were answered in calls which failed: 48 MiB of the largest
QUERY_TIMEOUT_S = 10.0  # of a search, and of a try whether a provider answers again
_PROBE, _PROBE_TOKENS = "penstock", 2


class Remote:
    """`Embedder` of a remote model.

    ``shortened``: a Matryoshka model that is asked for fewer dimensions than it has. A request holds no more texts and
    tokens than OpenAI takes, or less where another endpoint answers. ``traffic``: which all its requests go through.
    """

    def __init__(
        self, card: ModelCard, options: EmbeddingOptions, *, shortened: bool, traffic: Traffic | None = None
    ) -> None:
        self._endpoint = Endpoint(card, options, shortened=shortened)
        self.card = replace(card, fingerprint=_fingerprint(self._endpoint.url, card.passage_prefix))
        at_openai = is_openai(options)
        self._max_texts = options.openai_max_texts or (OPENAI_MAX_TEXTS if at_openai else MAX_TEXTS)
        self._max_tokens = options.openai_max_tokens or (OPENAI_MAX_TOKENS if at_openai else options.batch_tokens)
        self._timeout_s = options.timeout_s
        self._traffic = traffic or Traffic(self._endpoint.url)
        self._paid = PaidVectors(KEPT_VECTORS)
        self._takes_orders = takes_orders(options)
        self._payer: Payer = Unbilled()

    def billed_to(self, payer: Payer) -> Self:
        """Return the same embedder with another payer: `Billable`."""
        bound = copy(self)
        bound._payer = payer  # noqa: SLF001 it is one of this class
        return bound

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        return self._embed_all([self.card.passage_prefix + text for text in texts], urgent=False)

    def embed_query(self, text: str) -> Vectors:
        vector: Vectors = self._embed_all([self.card.query_prefix + text], urgent=True)[0]
        return vector

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return cl100k tokens, which are OpenAI's; another model's own may be more or fewer."""
        return [count_tokens(text) for text in texts]

    def provider(self, cut: Callable[[Vectors], Vectors] | None = None) -> Provider | None:
        """Return who takes orders for this model: `TakesOrders`."""
        if not self._takes_orders:
            return None
        asked = self._endpoint
        return OpenAIOrders(asked.client, asked, body=asked.body, prefix=self.card.passage_prefix, cut=cut)

    def check_passages(self, texts: Sequence[str]) -> None:
        self._refuse_long(self.count_tokens([self.card.passage_prefix + text for text in texts]))

    def check(self) -> None:
        with self._traffic.call(urgent=True) as call:
            self._request(call, [_PROBE], tokens=_PROBE_TOKENS)

    def close(self) -> None:
        self._endpoint.close()
        self._traffic.close()

    def _embed_all(self, texts: Sequence[str], *, urgent: bool) -> Vectors:
        sizes = self.count_tokens(texts)
        self._refuse_long(sizes)  # before anything is paid for
        work = _Work(texts, sizes, np.empty((len(texts), self.card.dimensions), np.float32), set())
        for place, vector in self._paid.take(self._payer.account, texts).items():
            work.vectors[place] = vector
            work.answered.add(place)
        left = [place for place in range(len(texts)) if place not in work.answered]
        try:
            if left:
                self._embed_left(work, left, urgent=urgent)
            return unit_rows(work.vectors)
        except (EmbeddingError, StorageError):
            self._paid.keep(self._payer.account, {texts[place]: work.vectors[place].copy() for place in work.answered})
            raise

    def _embed_left(self, work: "_Work", left: list[int], *, urgent: bool) -> None:
        bounds = {"most": self._max_texts, "most_size": self._max_tokens}
        requests = list(in_requests(left, work.sizes.__getitem__, **bounds))
        with self._traffic.call(urgent=urgent) as call:
            if call.trying and not urgent:  # not with a batch: nobody knows how long it would take to fail
                self._request(call, [_PROBE], tokens=_PROBE_TOKENS)
            call.take(requests=len(requests), tokens=work.tokens(left))
            self._payer.reserve(work.tokens(left))
            for places in requests:
                self._embed(call, work, places)

    def _refuse_long(self, sizes: list[int]) -> None:
        limit = self.card.input_limit_tokens
        long = [index for index, size in enumerate(sizes) if limit is not None and size > limit]
        if long:
            raise InputRejected(
                f"The text has {sizes[long[0]]} tokens, {self.card.name} reads {limit}: use shorter texts",
                index=long[0],
            )

    def _embed(self, call: Call, work: "_Work", places: list[int]) -> None:
        """Embed the texts of one request; when it is refused, each half of them, to find the text to blame."""
        try:
            texts = [work.texts[place] for place in places]
            work.vectors[places] = self._request(call, texts, tokens=work.tokens(places))
        except InputRejected as error:
            if len(places) == 1:
                self._blame(call, error, index=places[0])
            middle = len(places) // 2
            self._embed(call, work, places[:middle])
            self._embed(call, work, places[middle:])
        else:
            work.answered.update(places)

    def _blame(self, call: Call, error: InputRejected, *, index: int) -> None:
        """Raise InputRejected for one text, unless the endpoint refuses every text, which is not the text's fault."""
        try:
            self._request(call, [_PROBE], tokens=_PROBE_TOKENS)
        except InputRejected:
            raise ProviderMisconfigured(
                f"{self._endpoint.url} refuses every request for {self._endpoint.name}: {error}",
                setting="embedding.model",
            ) from error
        raise InputRejected(str(error), index=index) from error

    def _request(self, call: Call, texts: Sequence[str], *, tokens: int) -> Vectors:
        """Return float32[n, d] as the endpoint gave it. Raises every kind of EmbeddingError.

        The payer hears of it when it is paid for, or may be.
        """
        call.request(tokens)
        hurried = call.urgent or call.trying
        vectors, told_tokens = self._endpoint.ask(
            texts,
            timeout_s=min(QUERY_TIMEOUT_S, self._timeout_s) if hurried else self._timeout_s,
            answered=call.answered,
            wasted=lambda: self._payer.paid(tokens, answered=False),
        )
        self._payer.paid(told_tokens or tokens)
        return vectors


@dataclass(frozen=True, slots=True)
class _Work:
    """One call's texts, their tokens, their vectors float32[n, d], and the places of those that were answered."""

    texts: Sequence[str]
    sizes: Sequence[int]
    vectors: Vectors
    answered: set[int]

    def tokens(self, places: Sequence[int]) -> int:
        return sum(self.sizes[place] for place in places)


def _fingerprint(url: str, passage_prefix: str) -> str:
    told = f"{url} {passage_prefix}" if passage_prefix else url
    return hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
