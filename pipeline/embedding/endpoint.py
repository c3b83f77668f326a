"""One endpoint that speaks OpenAI's embeddings protocol: single requests, and what its answers and errors mean.

What it answers is believed only as far as it can be checked: one finite vector of the right length per text.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from penstock.storage.rates import Told

from ..errors import EmbeddingError, InputRejected, ProviderMisconfigured, ProviderUnavailable, RateLimited
from .bodies import decoded, message_of, never_arrived, told_tokens
from .embedder import EmbeddingOptions, ModelCard, Vectors, endpoint_of, is_openai
from .files import imported
from .headers import retry_after_s, told
from .vectors import unit_rows

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

CONNECT_TIMEOUT_S = 5.0
_ANSWER_BYTES, _NUMBER_BYTES = 1 << 20, 40  # most of an answer, and of each number in it where they are written out


class Endpoint:
    """A model at an address, asked with a key. ``body``: what every request says beside its texts.

    Several threads may ask at once. It retries nothing.
    """

    def __init__(self, card: ModelCard, options: EmbeddingOptions, *, shortened: bool) -> None:
        self.url = endpoint_of(options)
        self.name = card.name.partition("/")[2]
        # Models that are not known to shorten their vectors on request may not know the parameter.
        self.body: Mapping[str, Any] = {"model": self.name} | ({"dimensions": card.dimensions} if shortened else {})
        self._dimensions = card.dimensions
        self._openai = imported("openai", model="openai")
        self._key = options.openai_api_key or ""
        if not self._key and is_openai(options):
            raise ProviderMisconfigured(
                f"{card.name} needs a key: set embedding.openai_api_key", setting="embedding.openai_api_key"
            )
        self.client = self._connect(options.timeout_s)

    def close(self) -> None:
        self.client.close()

    def ask(
        self,
        texts: Sequence[str],
        *,
        timeout_s: float,
        answered: Callable[[Told], None],
        wasted: Callable[[], None],
    ) -> tuple[Vectors, int | None]:
        """Return float32[n, d] as the endpoint gave it, and the tokens that it says it counted.

        Args:
            answered: told what an answer says of the endpoint's limits.
            wasted: called where nothing comes of a request that may be paid for: not of what is refused, nor of what
                never arrived.

        Raises:
            EmbeddingError: of every kind.
        """
        try:
            answer = json.loads(self._answer(texts, timeout_s=timeout_s, answered=answered))
            return self._vectors(answer["data"], len(texts)), told_tokens(answer)
        except self._openai.APIStatusError as error:
            raise self._refused(error) from error
        except Exception as error:
            if not never_arrived(error):
                wasted()
            raise self._unanswered(error) from error

    def read_items(self, items: Sequence[Any], count: int) -> Vectors:
        """Return float32[count, d] of length one from the ``data`` of an answer. Raises EmbeddingError."""
        return unit_rows(self._vectors(items, count))

    def translated(self, error: Exception) -> EmbeddingError:
        """Return what an error of the client is here."""
        return self._refused(error) if isinstance(error, self._openai.APIStatusError) else self._unanswered(error)

    def _connect(self, timeout_s: float) -> "OpenAI":
        client: OpenAI = self._openai.OpenAI(
            # The client refuses to start without a key; local endpoints often want none.
            api_key=self._key or "none",
            base_url=self.url,
            timeout=self._openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
            max_retries=0,
        )
        return client

    def _answer(self, texts: Sequence[str], *, timeout_s: float, answered: Callable[[Told], None]) -> bytes:
        """Return the body of one answer: as a whole within the time for one, and no larger than it can have to be.

        The client's own limit is for each piece of it, and an endpoint could send such for ever.
        """
        deadline = time.monotonic() + timeout_s
        most_bytes = _ANSWER_BYTES + len(texts) * self._dimensions * _NUMBER_BYTES
        asked: dict[str, Any] = {**self.body, "input": list(texts), "encoding_format": "base64"}
        timeout = self._openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
        body = bytearray()
        with self.client.embeddings.with_streaming_response.create(**asked, timeout=timeout) as answer:
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > deadline:
                    raise self._too_slow()
                if len(body) > most_bytes:
                    raise ProviderUnavailable(
                        f"{self.url} answered more than {most_bytes} bytes for {len(texts)} texts."
                    )
            answered(told(answer.headers))
        return bytes(body)

    def _vectors(self, items: Sequence[Any], count: int) -> Vectors:
        if sorted(item["index"] for item in items) != list(range(count)):
            raise ProviderUnavailable(f"{self.url} answered {len(items)} vectors for {count} texts.")
        ordered = sorted(items, key=lambda item: int(item["index"]))
        rows = [decoded(item["embedding"]) for item in ordered]
        for row in rows:
            if len(row) != self._dimensions:
                raise ProviderMisconfigured(
                    f"{self.url} answered vectors of {len(row)} dimensions for {self.name}, not of"
                    f" {self._dimensions}: set embedding.openai_dimensions to {len(row)}",
                    setting="embedding.openai_dimensions",
                )
        vectors: Vectors = np.array(rows, np.float32)
        if not np.isfinite(vectors).all():
            raise ProviderUnavailable(f"{self.url} answered vectors that are not numbers.")
        return vectors

    def _refused(self, error: "APIStatusError") -> EmbeddingError:
        # Some endpoints repeat the key they refuse, and what is said here is logged and shown.
        said, status = message_of(error), error.status_code
        said = said.replace(self._key, "***") if self._key else said
        if error.code == "insufficient_quota":
            return ProviderMisconfigured(
                f"{self.url} says that the quota of the key in embedding.openai_api_key is used up: {said}; raise it"
                " there, or set another key",
                setting="embedding.openai_api_key",
            )
        if status in {401, 403}:
            return ProviderMisconfigured(
                f"{self.url} refuses the key in embedding.openai_api_key: {said}", setting="embedding.openai_api_key"
            )
        if status == 404:
            return ProviderMisconfigured(
                f"{self.url} has no {self.name}: {said}; see embedding.model and embedding.openai_base_url",
                setting="embedding.model",
            )
        if status in {400, 413, 422}:
            return InputRejected(f"{self.url} refuses the text: {said}")
        headers, message = error.response.headers, f"{self.url} answered {status}: {said}"
        if status == 429:
            return RateLimited(message, retry_after_s=retry_after_s(headers), told=told(headers))
        return ProviderUnavailable(message, retry_after_s=retry_after_s(headers))

    def _unanswered(self, error: Exception) -> EmbeddingError:
        match error:
            case EmbeddingError():
                return error
            case self._openai.APITimeoutError():
                return self._too_slow()
            case self._openai.APIConnectionError():
                why = f"{self.url} cannot be reached ({error.__cause__ or error})"
                return ProviderUnavailable(f"{why}: see embedding.openai_base_url")
            case _:  # a body that breaks off or is something else fails anywhere in the client
                return ProviderUnavailable(f"{self.url} answered what cannot be read: {error!r}")

    def _too_slow(self) -> ProviderUnavailable:
        return ProviderUnavailable(
            f"{self.url} did not answer in time: see embedding.timeout_s and embedding.openai_base_url"
        )
