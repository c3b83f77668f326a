"""What a provider that makes vectors for half the price within a day is given, and how its answers are read.

OpenAI's Batch API (platform.openai.com/docs/guides/batch): a file of requests, one a line; a batch made of it, which is
found again by its metadata; and files of answers in any order. Nothing of it is believed without a look.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from ..errors import EmbeddingError, ProviderUnavailable
from .embedder import Vectors

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types import Batch

MOST_BYTES = 190_000_000  # of a file: OpenAI takes 200 MB
MOST_TEXTS = 64  # of one request: one refused text refuses all of its request
MOST_TOKENS = 250_000
FOUND_BY = "penstock_order"  # name in the metadata of a batch, whose value is our own id
WINDOW: Final = "24h"
_PAGES, _PAGE = 20, 100
_OVER = ("completed", "expired", "cancelled", "failed")
_FULL = "token_limit_exceeded"


@dataclass(frozen=True, slots=True)
class Standing:
    """How an order stands at the provider. ``state`` is its own word; ``errors``: code and message of a refusal."""

    provider_id: str
    state: str
    done: int
    total: int
    output_file: str | None
    error_file: str | None
    input_file: str | None
    errors: tuple[tuple[str, str], ...] = ()

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    @property
    def is_too_much(self) -> bool:
        """Whether it was refused because too many tokens wait at the provider."""
        return self.state == "failed" and any(code == _FULL for code, _ in self.errors)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The answer to one request: its ``vectors`` float32[n, d] and the ``tokens`` it was counted as; or why not."""

    name: str
    vectors: Vectors | None
    tokens: int
    error: str = ""


class Provider(Protocol):
    """A provider that takes orders. Every method raises ProviderUnavailable and ProviderMisconfigured."""

    def write_request(self, name: str, texts: Sequence[str]) -> bytes:
        """Return one line of a file: a request of this name for passages."""
        ...

    def upload(self, path: Path) -> str:
        """Give the provider a file of requests, and return its name there."""
        ...

    def place(self, file_id: str, *, order_id: str) -> Standing:
        """Order what is in a file. From here on it costs money."""
        ...

    def find(self, order_id: str, *, since: float) -> list[Standing]:
        """Return what was placed under our id, not before ``since`` by the provider's clock."""
        ...

    def look(self, provider_id: str) -> Standing: ...
    def cancel(self, provider_id: str) -> Standing: ...

    def deliveries(self, file_id: str, *, counts: Mapping[str, int]) -> Iterator[Delivery]:
        """Yield the answers in a file; ``counts``: the texts of each request. What makes no sense is left out."""
        ...

    def delete_file(self, file_id: str) -> None:
        """Delete a file there. One that is gone is no error."""
        ...


@runtime_checkable
class TakesOrders(Protocol):
    """An embedder whose provider may take orders."""

    def provider(self, cut: Callable[[Vectors], Vectors] | None = None) -> Provider | None:
        """Return the provider; None when it takes none. ``cut``: makes shorter vectors of those that it delivers."""
        ...

    def check_passages(self, texts: Sequence[str]) -> None:
        """Raises InputRejected for a text that is too long."""
        ...


class Reader(Protocol):
    """How a remote model reads answers and errors: what is needed of `endpoint.Endpoint`."""

    def read_items(self, items: Sequence[Any], count: int) -> Vectors: ...
    def translated(self, error: Exception) -> EmbeddingError: ...


class OpenAIOrders:
    """`Provider` by OpenAI's protocol. ``body``: what each request says beside its texts; ``prefix``: of each text.

    ``cut``: as in `TakesOrders.provider`.
    """

    def __init__(
        self,
        client: "OpenAI",
        reader: Reader,
        *,
        body: Mapping[str, Any],
        prefix: str,
        cut: Callable[[Vectors], Vectors] | None = None,
    ) -> None:
        self._client = client
        self._reader = reader
        self._body = dict(body)
        self._prefix = prefix
        self._cut = cut

    def write_request(self, name: str, texts: Sequence[str]) -> bytes:
        body = {**self._body, "input": [self._prefix + text for text in texts], "encoding_format": "base64"}
        request = {"custom_id": name, "method": "POST", "url": "/v1/embeddings", "body": body}
        return json.dumps(request, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    def upload(self, path: Path) -> str:
        with self._answering():
            return self._client.files.create(file=path, purpose="batch").id

    def place(self, file_id: str, *, order_id: str) -> Standing:
        with self._answering():
            made = self._client.batches.create(
                input_file_id=file_id,
                endpoint="/v1/embeddings",
                completion_window=WINDOW,
                metadata={FOUND_BY: order_id},
            )
            return _standing(made)

    def find(self, order_id: str, *, since: float) -> list[Standing]:
        found: list[Standing] = []
        with self._answering():
            page = self._client.batches.list(limit=_PAGE)
            for _ in range(_PAGES):
                found += [_standing(one) for one in page.data if (one.metadata or {}).get(FOUND_BY) == order_id]
                if not page.has_next_page() or min(one.created_at for one in page.data) < since:
                    break
                page = page.get_next_page()
        return found

    def look(self, provider_id: str) -> Standing:
        with self._answering():
            return _standing(self._client.batches.retrieve(provider_id))

    def cancel(self, provider_id: str) -> Standing:
        with self._answering():
            return _standing(self._client.batches.cancel(provider_id))

    def deliveries(self, file_id: str, *, counts: Mapping[str, int]) -> Iterator[Delivery]:
        with self._answering(), self._client.files.with_streaming_response.content(file_id) as answer:
            for line in answer.iter_lines():
                delivery = self._read(line, counts) if line.strip() else None
                if delivery is not None:
                    yield delivery

    def delete_file(self, file_id: str) -> None:
        with self._answering(missing_is_fine=True):
            self._client.files.delete(file_id)

    def _read(self, line: str, counts: Mapping[str, int]) -> Delivery | None:
        """Return what a line says; None when it is about nothing that was asked."""
        try:
            said = json.loads(line)
            name, answer = said["custom_id"], said.get("response") or {}
            if name not in counts:
                return None
            body = answer.get("body") or {}
            if answer.get("status_code") != 200:
                return Delivery(name, None, 0, _why(said.get("error") or body.get("error")))
            vectors = self._reader.read_items(body["data"], counts[name])
            return Delivery(name, vectors if self._cut is None else self._cut(vectors), _tokens(body))
        except (ValueError, TypeError, KeyError, AttributeError):  # cut off, or something else
            return None
        except EmbeddingError as error:  # vectors of other dimensions, NaN, too few
            return Delivery(name, None, 0, str(error))

    @contextmanager
    def _answering(self, *, missing_is_fine: bool = False) -> Iterator[None]:
        """Turn what the client raises into our own errors."""
        try:
            yield
        except (EmbeddingError, GeneratorExit):
            raise
        except Exception as error:
            if not (missing_is_fine and getattr(error, "status_code", None) == 404):
                raise self._reader.translated(error) from error


def _standing(made: "Batch") -> Standing:
    counts, errors = made.request_counts, (made.errors.data or []) if made.errors else []
    if not made.id or not made.status:
        raise ProviderUnavailable("The endpoint answered an order without its name or state.")
    return Standing(
        made.id,
        made.status,
        counts.completed if counts else 0,
        counts.total if counts else 0,
        made.output_file_id,
        made.error_file_id,
        made.input_file_id,
        tuple((one.code or "", one.message or "") for one in errors),
    )


def _why(error: Any) -> str:
    said = error.get("message") if isinstance(error, dict) else error
    return " ".join(str(said or "no reason was given").split())[:300]


def _tokens(body: Mapping[str, Any]) -> int:
    usage = body.get("usage")
    told = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return told if isinstance(told, int) and told > 0 else 0
