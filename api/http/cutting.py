"""A process that parses and cuts documents for estimates: what takes it down, or takes too long, takes nobody along.

The limits are those of the chunk role. One process, started when first needed; it cuts one document at a time.
"""

import multiprocessing
import resource
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from penstock.pipeline.chunking import Fit, ResolvedChunking
from penstock.pipeline.embedding import Embedders
from penstock.pipeline.embedding.billing import Billable
from penstock.pipeline.errors import ParseError, PipelineError
from penstock.pipeline.estimating import CutChunk, Cutting, cut
from penstock.settings import wiring
from penstock.settings.model import Settings

START_S = 60.0  # of the process, with all that it loads; added to the time for the first document


@dataclass(frozen=True)
class ToCut:
    """One document, and the generation that it would be cut for. ``chunking``: resolved."""

    data: bytes
    filename: str
    media_type: str | None
    model: str
    dimensions: int
    chunking: dict[str, Any]


class Cutter:
    """Safe between threads, which take turns."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._process: Any = None
        self._connection: Connection | None = None

    def cut(self, document: ToCut) -> list[CutChunk]:
        """Return the chunks of one document. Raises ParseError: it cannot be read, or not within the limits."""
        limits = self._settings.limits
        with self._lock:
            connection = self._started()
            try:
                connection.send(document)
                if not connection.poll(START_S + 2 * limits.parse_timeout_s):
                    self._stop()
                    told = f"Reading it takes longer than {limits.parse_timeout_s:g} s: split it into smaller files."
                    raise ParseError("timeout", told)
                answer = connection.recv()
            except (EOFError, OSError) as error:
                self._stop()
                told = (
                    "Reading it takes more memory than workers.chunk_memory_bytes, or ends the process that reads it."
                )
                raise ParseError("too_large", told) from error
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def close(self) -> None:
        with self._lock:
            self._stop()

    def _started(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")  # threads run here, which a fork would not survive well
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs, self._settings), name="cutter", daemon=True)
            self._process.start()
            theirs.close()
        return self._connection

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._connection = self._process = None


def serve(connection: Connection, settings: Settings) -> None:
    """Cut documents until nobody asks any more: the main function of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    size_bytes = settings.workers.chunk_memory_bytes
    with suppress(ValueError, OSError):  # a container may allow less, and then does
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))
    embedders = Embedders(lambda model, dimensions: wiring.open_embedder(settings, model, dimensions, threads=1))
    with suppress(EOFError, OSError):
        while True:
            document = connection.recv()
            connection.send(_answer(document, settings, embedders))


def _answer(document: ToCut, settings: Settings, embedders: Embedders) -> list[CutChunk] | Exception:
    try:
        embedder = embedders.of(document.model, document.dimensions)
        card = embedder.card
        cutting = Cutting(
            config=ResolvedChunking.model_validate(document.chunking),
            limits=wiring.parse_limits(settings),
            fit=None if card.input_limit_tokens is None else Fit(card.input_limit_tokens, embedder.count_tokens),
            count=embedder.count_tokens if isinstance(embedder, Billable) else None,
            prefix=card.passage_prefix,
        )
        return cut(document.data, filename=document.filename, media_type=document.media_type, cutting=cutting)
    except MemoryError:
        return ParseError("too_large", "Reading it takes more memory than workers.chunk_memory_bytes.")
    except PipelineError as error:
        return error
    except Exception as error:  # noqa: BLE001 a defect, of which the one who asked has to know; not all can be sent
        return RuntimeError(f"a document could not be cut: {error!r}")
