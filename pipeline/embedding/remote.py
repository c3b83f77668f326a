"""Any endpoint that speaks OpenAI's embeddings protocol. Retries nothing: whoever calls knows when to try again.

What the endpoint answers is believed only as far as it can be checked: one finite vector of the right length per text.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from penstock.storage.errors import StorageError

from ..chunking import count_tokens
from ..errors import EmbeddingError, InputRejected, ProviderMisconfigured, ProviderUnavailable, RateLimited
from .billing import Payer, Unbilled
from .bodies import decoded, message_of, never_arrived, told_tokens
from .embedder import OPENAI_URL, EmbeddingOptions, ModelCard, Vectors
from .files import imported
from .headers import retry_after_s, told
from .orders import OpenAIOrders, Provider
from .paid import PaidVectors
from .traffic import Call, Traffic
from .vectors import unit_rows

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

CONNECT_TIMEOUT_S = 5.0
OPENAI_MAX_TEXTS, OPENAI_MAX_TOKENS = 2_048, 300_000  # of one request, as OpenAI documents it
MAX_TEXTS = 256  # of one request to another endpoint, which says nowhere how much it takes
KEPT_VECTORS = 4_096  # that were answered in calls which failed: 48 MiB of the largest
QUERY_TIMEOUT_S = 10.0  # of a search, and of a try whether a provider answers again
_PROBE, _PROBE_TOKENS = "penstock", 2
_ANSWER_BYTES, _NUMBER_BYTES = 1 << 20, 40  # most of an answer, and of each number in it where they are written out


class Remote:
    """`Embedder` of a remote model.

    ``shortened``: a Matryoshka model that is asked for fewer dimensions than it has. A request holds no more texts and
    tokens than OpenAI takes, or less where another endpoint answers. ``traffic``: which all its requests go through.
    """

    def __init__(
        self, card: ModelCard, options: EmbeddingOptions, *, shortened: bool, traffic: Traffic | None = None
    ) -> None:
        self._name = card.name.partition("/")[2]
        self._url = options.openai_base_url or OPENAI_URL
        self.card = replace(card, fingerprint=_fingerprint(self._url, card.passage_prefix))
        at_openai = self._url == OPENAI_URL
        self._max_texts = options.openai_max_texts or (OPENAI_MAX_TEXTS if at_openai else MAX_TEXTS)
        self._max_tokens = options.openai_max_tokens or (OPENAI_MAX_TOKENS if at_openai else options.batch_tokens)
        self._key = options.openai_api_key or ""
        self._timeout_s = options.timeout_s
        self._traffic = traffic or Traffic(self._url)
        self._paid = PaidVectors(KEPT_VECTORS)
        self._takes_orders = self._url == OPENAI_URL if options.openai_batches is None else options.openai_batches
        self._openai = imported("openai", model="openai")
        self._client = self._connect(options)
        # Models that are not known to shorten their vectors on request may not know the parameter.
        self._extra: dict[str, Any] = {"dimensions": card.dimensions} if shortened else {}
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

    def provider(self) -> Provider | None:
        """Return who takes orders for this model: `TakesOrders`."""
        if not self._takes_orders:
            return None
        body = {"model": self._name, **self._extra}
        return OpenAIOrders(self._client, self, body=body, prefix=self.card.passage_prefix)

    def check_passages(self, texts: Sequence[str]) -> None:
        self._refuse_long(self.count_tokens([self.card.passage_prefix + text for text in texts]))

    def read_items(self, items: Sequence[Any], count: int) -> Vectors:
        """Return float32[count, d] of length one from the ``data`` of an answer. Raises EmbeddingError."""
        return unit_rows(self._vectors(items, count))

    def translated(self, error: Exception) -> EmbeddingError:
        """Return what an error of the client is here."""
        return self._translated(error) if isinstance(error, self._openai.APIStatusError) else self._unanswered(error)

    def check(self) -> None:
        with self._traffic.call(urgent=True) as call:
            self._request(call, [_PROBE], tokens=_PROBE_TOKENS)

    def close(self) -> None:
        self._client.close()
        self._traffic.close()

    def _connect(self, options: EmbeddingOptions) -> "OpenAI":
        key = options.openai_api_key
        if not key and self._url == OPENAI_URL:
            raise ProviderMisconfigured(
                f"{self.card.name} needs a key: set embedding.openai_api_key", setting="embedding.openai_api_key"
            )
        client: OpenAI = self._openai.OpenAI(
            # The client refuses to start without a key; local endpoints often want none.
            api_key=key or "none",
            base_url=self._url,
            timeout=self._openai.Timeout(options.timeout_s, connect=min(CONNECT_TIMEOUT_S, options.timeout_s)),
            max_retries=0,
        )
        return client

    def _embed_all(self, texts: Sequence[str], *, urgent: bool) -> Vectors:
        sizes = self.count_tokens(texts)
        self._refuse_long(sizes)  # before anything is paid for
        work = _Work(texts, sizes, np.empty((len(texts), self.card.dimensions), np.float32), set())
        for place, vector in self._paid.take(texts).items():
            work.vectors[place] = vector
            work.answered.add(place)
        left = [place for place in range(len(texts)) if place not in work.answered]
        try:
            if left:
                self._embed_left(work, left, urgent=urgent)
            return unit_rows(work.vectors)
        except (EmbeddingError, StorageError):
            self._paid.keep({texts[place]: work.vectors[place].copy() for place in work.answered})
            raise

    def _embed_left(self, work: "_Work", left: list[int], *, urgent: bool) -> None:
        requests = [left[start:stop] for start, stop in pairwise(self._bounds([work.sizes[place] for place in left]))]
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

    def _bounds(self, sizes: list[int]) -> Iterator[int]:
        """Yield where requests begin and the last one ends, each within what one may hold."""
        tokens = count = 0
        yield 0
        for index, size in enumerate(sizes):
            if count and (tokens + size > self._max_tokens or count == self._max_texts):
                yield index
                tokens = count = 0
            tokens, count = tokens + size, count + 1
        if sizes:
            yield len(sizes)

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
                f"{self._url} refuses every request for {self._name}: {error}", setting="embedding.model"
            ) from error
        raise InputRejected(str(error), index=index) from error

    def _request(self, call: Call, texts: Sequence[str], *, tokens: int) -> Vectors:
        """Return float32[n, d] as the endpoint gave it. Raises every kind of EmbeddingError.

        The payer hears of it when it is paid for, or may be: not of what is refused, nor of what never arrived.
        """
        call.request(tokens)
        hurried = call.urgent or call.trying
        try:
            timeout_s = min(QUERY_TIMEOUT_S, self._timeout_s) if hurried else self._timeout_s
            answer = json.loads(self._answer(call, texts, timeout_s=timeout_s))
            vectors = self._vectors(answer["data"], len(texts))
        except self._openai.APIStatusError as error:
            raise self._translated(error) from error
        except Exception as error:
            if not never_arrived(error):
                self._payer.paid(tokens, answered=False)
            raise self._unanswered(error) from error
        self._payer.paid(told_tokens(answer) or tokens)
        return vectors

    def _unanswered(self, error: Exception) -> EmbeddingError:
        match error:
            case EmbeddingError():
                return error
            case self._openai.APITimeoutError():
                return self._too_slow()
            case self._openai.APIConnectionError():
                why = f"{self._url} cannot be reached ({error.__cause__ or error})"
                return ProviderUnavailable(f"{why}: see embedding.openai_base_url")
            case _:  # a body that breaks off or is something else fails anywhere in the client
                return ProviderUnavailable(f"{self._url} answered what cannot be read: {error!r}")

    def _answer(self, call: Call, texts: Sequence[str], *, timeout_s: float) -> bytes:
        """Return the body of one answer: as a whole within the time for one, and no larger than it can have to be.

        The client's own limit is for each piece of it, and an endpoint could send such for ever.
        """
        deadline = time.monotonic() + timeout_s
        most_bytes = _ANSWER_BYTES + len(texts) * self.card.dimensions * _NUMBER_BYTES
        asked = {"model": self._name, "input": list(texts), "encoding_format": "base64", **self._extra}
        timeout = self._openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        body = bytearray()
        with self._client.embeddings.with_streaming_response.create(**asked, timeout=timeout) as answer:
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > deadline:
                    raise self._too_slow()
                if len(body) > most_bytes:
                    raise ProviderUnavailable(
                        f"{self._url} answered more than {most_bytes} bytes for {len(texts)} texts."
                    )
            call.answered(told(answer.headers))
        return bytes(body)

    def _too_slow(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self._url} did not answer in time: see embedding.timeout_s and embedding.openai_base_url"
        )

    def _vectors(self, items: Sequence[Any], count: int) -> Vectors:
        if sorted(item["index"] for item in items) != list(range(count)):
            raise ProviderUnavailable(f"{self._url} answered {len(items)} vectors for {count} texts.")
        ordered = sorted(items, key=lambda item: int(item["index"]))
        rows = [decoded(item["embedding"]) for item in ordered]
        for row in rows:
            if len(row) != self.card.dimensions:
                raise ProviderMisconfigured(
                    f"{self._url} answered vectors of {len(row)} dimensions for {self._name}, not of"
                    f" {self.card.dimensions}: set embedding.openai_dimensions to {len(row)}",
                    setting="embedding.openai_dimensions",
                )
        vectors: Vectors = np.array(rows, np.float32)
        if not np.isfinite(vectors).all():
            raise ProviderUnavailable(f"{self._url} answered vectors that are not numbers.")
        return vectors

    def _translated(self, error: "APIStatusError") -> EmbeddingError:
        # Some endpoints repeat the key they refuse, and what is said here is logged and shown.
        said, status = message_of(error), error.status_code
        said = said.replace(self._key, "***") if self._key else said
        if error.code == "insufficient_quota":
            return ProviderMisconfigured(
                f"{self._url} says that the quota of the key in embedding.openai_api_key is used up: {said}; raise it"
                " there, or set another key",
                setting="embedding.openai_api_key",
            )
        if status in {401, 403}:
            return ProviderMisconfigured(
                f"{self._url} refuses the key in embedding.openai_api_key: {said}", setting="embedding.openai_api_key"
            )
        if status == 404:
            return ProviderMisconfigured(
                f"{self._url} has no {self._name}: {said}; see embedding.model and embedding.openai_base_url",
                setting="embedding.model",
            )
        if status in {400, 413, 422}:
            return InputRejected(f"{self._url} refuses the text: {said}")
        headers, message = error.response.headers, f"{self._url} answered {status}: {said}"
        if status == 429:
            return RateLimited(message, retry_after_s=retry_after_s(headers), told=told(headers))
        return ProviderUnavailable(message, retry_after_s=retry_after_s(headers))


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
