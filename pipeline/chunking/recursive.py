"""Cuts where the text itself has the strongest break: sections, then paragraphs, lines, sentences, words.

Whatever fits into one chunk is never cut for the sake of a weaker break: a paragraph that fits stays whole, and so does
a row of a table. Works on columns of words; sees no text.
"""

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from .words import INSIDE, LINE, PARAGRAPH, SECTION, SENTENCE, WORD, Words

_TINY = 1 / 4  # of a chunk: less is not worth standing alone
_ENOUGH = 1 / 2  # of a chunk: a section of this size is not merged with the next
_AROUND = 3  # words on each side of a break that tell it from others
_SLACK = 1 / 8  # of a chunk: how far from an even share a cut between words may lie


def cut_recursively(words: Words, *, size_tokens: int, overlap_tokens: int) -> list[tuple[int, int]]:
    """Return chunks as (first word, word after the last), ascending, each of at most ``size_tokens`` tokens.

    ``overlap_tokens``: how much of the text before a cut is repeated after it at most. It begins with a sentence if one
    does there, repeats rows of a table whole or not at all, never reaches into another section, and gives way where a
    paragraph would not fit otherwise.
    """
    cutter = _Cutter.over(words, size_tokens, overlap_tokens)
    chunks: list[tuple[int, int]] = []
    at = previous = 0
    while at < cutter.count:
        end = cutter.next_cut(at)
        begin = cutter.overlap_start(at, end, previous) if at else 0
        chunks.append((begin, end))
        at, previous = end, begin
    return chunks


@dataclass(frozen=True)
class _Cutter:
    """The columns as memory views, whose single elements Python reads faster than an array's."""

    count: int
    first: memoryview
    last: memoryview
    breaks: memoryview
    levels: list[memoryview]  # for each strength, the words with a break at least as strong; ends with the word count
    words: Words
    size: int
    body: int  # what is new in a chunk, besides the overlap

    @classmethod
    def over(cls, words: Words, size: int, overlap: int) -> "_Cutter":
        breaks = np.append(words.breaks, np.uint8(SECTION))
        levels = [_view(np.flatnonzero(breaks <= strength)) for strength in range(INSIDE + 1)]
        first, last = _view(words.first), _view(words.last)
        return cls(len(words.starts), first, last, _view(breaks), levels, words, size, size - overlap)

    @cached_property
    def marks(self) -> memoryview:
        """Of each word, a number that the words around it alone decide. Few texts are cut where it is asked for."""
        return _view(_marks(self.words))

    def tokens(self, at: int, end: int) -> int:
        """Return the tokens from word ``at`` to before word ``end``."""
        return int(self.last[end - 1] - self.first[at])

    def next_cut(self, at: int) -> int:
        """Return where the chunk that begins at word ``at`` ends."""
        reach = bisect_right(self.last, self.first[at] + self.size, at)
        if reach <= at:  # a single part of a word beyond the size: it cannot be cut
            return at + 1
        if cut := self._section_cut(at, reach):
            return cut
        cut = 0
        for strength in range(PARAGRAPH, INSIDE + 1):
            cut = self._balanced_cut(at, reach, strength)
            if cut and not self._orphaned(at, cut, strength):
                return cut
        return cut or reach

    def _section_cut(self, at: int, reach: int) -> int:
        """Return the end of enough whole sections, 0 when the first does not fit. The end of the text ends one too."""
        ends = self.levels[SECTION]
        index, stop = bisect_right(ends, at), bisect_right(ends, reach)
        if index == stop:
            return 0
        while index + 1 < stop and (
            self.tokens(at, ends[index]) < self.size * _ENOUGH
            or self.tokens(ends[index], ends[index + 1]) < self.size * _TINY
        ):
            index += 1
        return 0 if self._orphaned(at, ends[index], SECTION) else int(ends[index])

    def _balanced_cut(self, at: int, reach: int, strength: int) -> int:
        """Return the break nearest to an even share of what must be cut anyway, 0 when there is none."""
        cuts, first, last = self.levels[strength], self.first, self.last
        if cuts[bisect_right(cuts, at)] > reach:
            return 0
        outer = self.levels[strength - 1]
        begin = first[at]
        total = last[outer[bisect_right(outer, reach, 0, len(outer) - 1)] - 1] - begin
        share = total / ceil(total / self.body)
        if strength >= WORD:
            return self._marked_cut(at, reach, strength, share)
        index = bisect_right(cuts, bisect_right(last, begin + share, at, reach))
        below, above = cuts[index - 1], cuts[index]
        if above > reach:
            return int(below)
        after = last[above - 1] - begin
        if below <= at or last[below - 1] - begin < self.size * _TINY:
            return int(above)
        nearer = after - share < share - (last[below - 1] - begin)
        return int(above if after <= self.body and nearer else below)

    def _marked_cut(self, at: int, reach: int, strength: int, share: float) -> int:
        """Return the break about an even share away whose mark is lowest.

        One place between words is as good as another. Chosen by what stands around it, it stays when the text before
        changes, and what follows is cut as it was.
        """
        cuts, begin = self.levels[strength], self.first[at]
        low, high = share - self.size * _SLACK, min(share + self.size * _SLACK, float(self.body))
        first = bisect_right(cuts, bisect_left(self.last, begin + low, at, reach))
        stop = bisect_right(cuts, min(bisect_right(self.last, begin + high, at, reach), reach))
        if first >= stop:  # nothing so near: then the last one before
            return int(cuts[bisect_right(cuts, reach) - 1])
        return int(min(cuts[first:stop], key=self.marks.__getitem__))

    def _orphaned(self, at: int, cut: int, strength: int) -> bool:
        """Return whether a cut leaves too little before it, though what follows has to be cut in any case."""
        if cut == self.count or self.tokens(at, cut) >= self.size * _TINY:
            return False
        cuts = self.levels[strength]
        return self.tokens(cut, cuts[bisect_right(cuts, cut)]) > self.size

    def overlap_start(self, at: int, end: int, previous: int) -> int:
        """Return the word where the chunk with new words ``at`` to ``end`` begins, its overlap included."""
        if self.breaks[at] == SECTION or self.body == self.size:
            return at
        section = self.levels[SECTION][bisect_right(self.levels[SECTION], at) - 1]
        room = max(self.last[end - 1] - self.size, self.last[at - 1] - (self.size - self.body))
        begin = max(bisect_left(self.first, room, 0, at), section, previous + 1)
        for strength in self._alignments(at):
            aligned = self.levels[strength][bisect_left(self.levels[strength], begin)]
            if aligned < at:
                return int(aligned)
        return at

    def _alignments(self, at: int) -> tuple[int, ...]:
        """Return the breaks an overlap may begin at, the preferred one first: half a row of a table tells nothing."""
        strength = self.breaks[at]
        if strength == PARAGRAPH:
            lines = self.levels[LINE]
            paragraphs = self.levels[PARAGRAPH]
            has_rows = lines[bisect_left(lines, at) - 1] > paragraphs[bisect_left(paragraphs, at) - 1]
            return (PARAGRAPH,) if has_rows else (SENTENCE,)
        return (LINE,) if strength == LINE else (SENTENCE, WORD, INSIDE)[: max(2, strength - SENTENCE + 1)]


def _view(column: npt.NDArray[Any]) -> memoryview:
    return memoryview(column.data)


def _marks(words: Words) -> npt.NDArray[np.uint64]:
    """Return a number for each word, mixed from the lengths of a few words on both sides of the break before it."""
    lengths = (words.ends - words.starts).astype(np.uint64)
    mixed = np.zeros(len(lengths), np.uint64)
    for shift in range(-_AROUND, _AROUND):
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) + np.roll(lengths, shift)
        mixed ^= mixed >> np.uint64(29)
    return mixed
