"""Cuts a text into chunks, each small enough for its embedding model and with exact character offsets."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from .config import ChunkingConfig, ResolvedChunking, resolve
from .recursive import cut_recursively
from .tokens import map_tokens
from .windows import slide
from .words import Place, find_words

_MARGIN = 0.95  # the parts of a chunk can take more of the model's tokens than their share
_OVERLAP = 1 / 8  # of the parts of a chunk that had to be cut again

Cut = tuple[int, int, int]  # start, end, tokens


@dataclass(frozen=True, slots=True)
class Chunk:
    """Characters ``start`` to ``end`` of the text, without white space around them, and the cl100k tokens they cover.

    ``page`` and ``heading`` are those of its first character.
    """

    start: int
    end: int
    tokens: int
    page: int | None = None
    heading: str | None = None


@dataclass(frozen=True, slots=True)
class Fit:
    """What an embedding model reads: ``max_tokens`` of its own tokens, as ``count`` counts them, many texts at once.

    A text is taken to have no more tokens than bytes in UTF-8, so those short enough are not counted at all.
    """

    max_tokens: int
    count: Callable[[Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class _Stretch:
    start: int
    end: int
    page: int | None
    heading: str | None


def chunk(
    text: str,
    config: ChunkingConfig | ResolvedChunking,
    *,
    spans: Sequence[Place] = (),
    fit: Fit | None = None,
) -> list[Chunk]:
    """Return the chunks of ``text``, ascending; every character but white space is in one. Blank text has none.

    ``text[chunk.start:chunk.end]`` is the chunk. Without overlap no character is in two. ``spans`` cover the text in
    order. With ``fit`` no chunk is longer than the model reads: one that would be is cut again.

    Raises:
        InvalidChunking: the sizes contradict each other, or exceed ``fit``.
    """
    plan = resolve(ChunkingConfig(**config.model_dump()), limit=fit.max_tokens if fit else None)
    cuts = _cut(text, plan, spans)
    if fit is not None:
        cuts = _fitted(text, cuts, plan, spans, fit)
    return _placed(cuts, spans)


def _cut(text: str, plan: ResolvedChunking, spans: Sequence[Place]) -> list[Cut]:
    if not text or text.isspace():
        return []
    if plan.strategy == "tokens":
        return _windows(text, plan)
    words = find_words(text, size_tokens=plan.size_tokens, places=spans)
    ranges = cut_recursively(words, size_tokens=plan.size_tokens, overlap_tokens=plan.overlap_tokens)
    begin, end = np.array(ranges, np.int64).T
    tokens = words.last[end - 1] - words.first[begin]
    return list(zip(words.starts[begin].tolist(), words.ends[end - 1].tolist(), tokens.tolist(), strict=True))


def _windows(text: str, plan: ResolvedChunking) -> list[Cut]:
    """Return the windows without white space around them; one that then adds nothing to the one before is left out."""
    tokens = map_tokens(text)
    starts, ends = slide(tokens, size_tokens=plan.size_tokens, overlap_tokens=plan.overlap_tokens)
    bounds: list[tuple[int, int]] = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        window = text[start:end]
        first, last = end - len(window.lstrip()), start + len(window.rstrip())
        if first < last and (not bounds or last > bounds[-1][1]):
            bounds.append((first, last))
    begin, end = np.array(bounds, np.int64).T
    covered = (
        tokens.numbers[tokens.cuts.searchsorted(end)] - tokens.numbers[tokens.cuts.searchsorted(begin, "right") - 1]
    )
    return [(*bound, count) for bound, count in zip(bounds, covered.tolist(), strict=True)]


def _fitted(text: str, cuts: list[Cut], plan: ResolvedChunking, spans: Sequence[Place], fit: Fit) -> list[Cut]:
    """Cut again what takes more of the model's tokens than it reads, until nothing does."""
    kept: list[Cut] = []
    while cuts:
        counts = _counted(text, cuts, fit)
        parts: list[Cut] = []
        for one, count in zip(cuts, counts, strict=True):
            smaller = _cut_again(text, one, plan, spans, share=fit.max_tokens / count) if count > fit.max_tokens else []
            parts.extend(smaller)
            if not smaller:
                kept.append(one)
        cuts = parts
    return sorted(kept)


def _counted(text: str, cuts: list[Cut], fit: Fit) -> list[int]:
    """Return the model's tokens of each cut; where they are too few to matter, only an upper bound."""
    texts = [text[start:end] for start, end, _ in cuts]
    bounds = [len(one.encode("utf-8", "surrogatepass")) for one in texts]
    long = [index for index, bound in enumerate(bounds) if bound > fit.max_tokens]
    for index, count in zip(long, fit.count([texts[index] for index in long]) if long else (), strict=True):
        bounds[index] = count
    return bounds


def _cut_again(text: str, one: Cut, plan: ResolvedChunking, spans: Sequence[Place], *, share: float) -> list[Cut]:
    """Return one chunk in parts of about ``share`` of its size; none when it is a single token, which cannot be cut."""
    start, end, tokens = one
    inner = [
        _Stretch(max(span.start - start, 0), min(span.end, end) - start, span.page, span.heading)
        for span in spans
        if span.start < end and span.end > start
    ]
    size = int(tokens * share * _MARGIN)
    while size > 0:
        overlap = min(plan.overlap_tokens, int(size * _OVERLAP))
        parts = _cut(text[start:end], plan.model_copy(update={"size_tokens": size, "overlap_tokens": overlap}), inner)
        if len(parts) > 1:
            return [(start + first, start + last, count) for first, last, count in parts]
        size //= 2  # on its own the part takes fewer tokens than within the text
    return []


def _placed(cuts: list[Cut], spans: Sequence[Place]) -> list[Chunk]:
    if not spans:
        return [Chunk(*cut) for cut in cuts]
    begins = [span.start for span in spans]
    found = (spans[max(0, bisect_right(begins, start) - 1)] for start, _, _ in cuts)
    return [Chunk(*cut, span.page, span.heading) for cut, span in zip(cuts, found, strict=True)]
