"""What embedding documents would take, before anything is accepted: counted on the texts themselves. It does no I/O.

The same parsing, cutting and counting as an ingest does; what is known already is asked by the caller, and passed in.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from penstock.storage.cache import text_digest
from penstock.storage.segments.rows import chunk_identity

from .chunking import Fit, ResolvedChunking, chunk
from .errors import ParseError
from .parsing import ParseLimits, parse


@dataclass(frozen=True, slots=True)
class CutChunk:
    """``digest``: what the cache knows its text by; ``identity``: what the index knows it by. ``tokens``: as billed."""

    digest: bytes
    identity: bytes
    tokens: int


@dataclass(frozen=True)
class Cutting:
    """How documents are read and cut. ``count`` counts what a provider is given of a passage, with its ``prefix``.

    ``count`` None: the tokens by which documents are cut are those that are counted.
    """

    config: ResolvedChunking
    limits: ParseLimits
    fit: Fit | None
    count: Callable[[Sequence[str]], Sequence[int]] | None = None
    prefix: str = ""


def cut(data: bytes, *, filename: str, media_type: str | None, cutting: Cutting) -> list[CutChunk]:
    """Parse and cut one document. Raises ParseError."""
    parsed = parse(data, filename=filename, media_type=media_type, limits=cutting.limits)
    chunks = chunk(parsed.text, cutting.config, spans=parsed.spans, fit=cutting.fit)
    if not chunks:
        raise ParseError("no_text", "It holds no text to search: nothing would be indexed.")
    texts = [parsed.text[one.start : one.end] for one in chunks]
    sizes: Sequence[int] = [one.tokens for one in chunks]
    if cutting.count is not None:
        sizes = cutting.count([cutting.prefix + text for text in texts])
    described = cutting.config.model_dump()
    return [
        CutChunk(text_digest(text), chunk_identity(text, chunking=described), size)
        for text, size in zip(texts, sizes, strict=True)
    ]


@dataclass(frozen=True)
class Estimated:
    """``chunks`` of all documents together: ``reused`` ones have their vectors in the index, ``hits`` in the cache.

    ``new``: the tokens of each text that the model is given, by digest; ``repeated``: further chunks of those texts.
    """

    chunks: int
    reused: int
    hits: int
    repeated: int
    new: Mapping[bytes, int]

    @property
    def tokens(self) -> int:
        return sum(self.new.values())


def estimate(
    documents: Iterable[tuple[str, Sequence[CutChunk]]],
    *,
    kept: Collection[tuple[str, bytes]],
    cached: Callable[[Mapping[bytes, int]], Collection[bytes]],
) -> Estimated:
    """Add up documents, given as id and chunks.

    ``kept``: document and identity of chunks that the index has; ``cached`` says which texts the cache has.
    """
    chunks = reused = 0
    texts: dict[bytes, int] = {}
    times: Counter[bytes] = Counter()
    for document_id, cut_chunks in documents:
        for one in cut_chunks:
            chunks += 1
            if (document_id, one.identity) in kept:
                reused += 1
                continue
            texts[one.digest] = one.tokens
            times[one.digest] += 1
    known = set(cached(texts)) if texts else set()
    new = {digest: tokens for digest, tokens in texts.items() if digest not in known}
    hits = sum(times[digest] for digest in known)
    return Estimated(chunks, reused, hits, times.total() - hits - len(new), new)
