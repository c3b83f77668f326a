"""The words of a text, and how strong the break before each is. Columns, one row per word; decides nothing.

A word is what stands between white space (as `str.isspace` has it). Only a word longer than a chunk is taken apart, at
every place where no token and no character is split: those parts are rows like words, with weaker breaks before them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .tokens import Ints, TokenMap, map_tokens
from .wrapping import is_wrapped

# Breaks, strongest first.
SECTION, PARAGRAPH, LINE, SENTENCE, WORD, INSIDE = range(6)

Bytes = npt.NDArray[np.uint8]

_SPACE, _NEWLINE, _RETURN, _ENDS, _ENDS_WIDE, _CLOSES, _PAUSES, _LOWER = (1 << bit for bit in range(8))
_CHARACTERS = {  # escapes where a character looks like another
    _NEWLINE: "\n\x0b\x0c\x85\u2028\u2029",
    _RETURN: "\r",
    _ENDS: ".!?\u2026\u061f\u06d4\u0964\u0965\u0589\u1362",  # ellipsis; Arabic, Urdu, Devanagari, Armenian, Ethiopic
    _ENDS_WIDE: "。｡\uff01\uff1f\uff1b",  # ! ? ;
    _CLOSES: "\"')]}»”\u2019」』】》\uff09*_`",
    _PAUSES: ",;:/\\-_.|=&+!?)]}>、\u2026\u2014\u2013\uff0c\uff1a",  # ellipsis, dashes, wide comma and colon
}
_TABLE_SIZE = 0x10000
_MAX_HEADING_WORDS = 40


class Place(Protocol):
    """A stretch of the text with its page and heading, as parsing makes them."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def page(self) -> int | None: ...
    @property
    def heading(self) -> str | None: ...


@dataclass(frozen=True, slots=True)
class Words:
    """Row k: characters ``starts[k]:ends[k]``, which tokens ``first[k]:last[k]`` cover, and the break before it.

    All int64 but ``breaks``, uint8. A token can cover parts of two rows, so ``last[k]`` may exceed ``first[k + 1]``.
    """

    starts: Ints
    ends: Ints
    first: Ints
    last: Ints
    breaks: Bytes


def find_words(text: str, *, size_tokens: int, places: Sequence[Place] = ()) -> Words:
    """Return the words of ``text``, which is not blank; those of more than ``size_tokens`` tokens are taken apart."""
    tokens = map_tokens(text)
    kinds = _kinds(text)
    starts, ends = _between_space(kinds)
    spoken = _spoken_breaks(kinds, starts, ends)
    breaks = _line_breaks(spoken, kinds, starts)
    _mark_places(breaks, text, starts, ends, places)
    first, last = _covering(tokens, len(text), starts, ends)
    for paragraph in _long_paragraphs(breaks, first, last, size_tokens):
        _unwrap(breaks[paragraph], spoken[paragraph], kinds, starts[paragraph], ends[paragraph])
    long = np.flatnonzero(last - first > size_tokens)
    if len(long) == 0:
        return Words(starts, ends, first, last, breaks)
    inner = _inner_cuts(tokens.cuts, starts[long], ends[long])
    inner_breaks = np.full(len(inner), INSIDE, np.uint8)
    inner_breaks[(kinds[inner - 1] & _PAUSES) != 0] = WORD
    inner_breaks[(kinds[inner - 1] & _ENDS_WIDE) != 0] = SENTENCE
    at = np.searchsorted(starts, inner)
    starts, ends = np.insert(starts, at, inner), np.insert(ends, at - 1, inner)
    return Words(starts, ends, *_covering(tokens, len(text), starts, ends), np.insert(breaks, at, inner_breaks))


def _kinds(text: str) -> Bytes:
    """Return the kinds of every character, as bits."""
    if text.isascii():
        return np.frombuffer(text.encode().translate(_ascii_kinds()), np.uint8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    return _kind_table()[np.minimum(points, _TABLE_SIZE - 1)]


@cache
def _ascii_kinds() -> bytes:
    return _kind_table()[:256].tobytes()


@cache
def _kind_table() -> Bytes:
    table = np.zeros(_TABLE_SIZE, np.uint8)
    for point in range(_TABLE_SIZE):
        character = chr(point)
        table[point] = _SPACE * character.isspace() | _LOWER * character.islower()
    for kind, characters in _CHARACTERS.items():
        table[[ord(character) for character in characters]] |= kind
    return table


def _between_space(kinds: Bytes) -> tuple[Ints, Ints]:
    space = np.ones(len(kinds) + 2, np.uint8)
    np.bitwise_and(kinds, _SPACE, out=space[1:-1])
    edges = np.flatnonzero(space[1:] != space[:-1])
    return edges[::2], edges[1::2]


def _covering(tokens: TokenMap, length: int, starts: Ints, ends: Ints) -> tuple[Ints, Ints]:
    """Return the tokens that cover each stretch: from the one that holds its start to the one that holds its end."""
    is_cut = np.zeros(length + 1, bool)
    is_cut[tokens.cuts] = True
    passed = np.add.accumulate(is_cut, dtype=np.int32)  # cuts up to and including each character position
    return tokens.numbers[passed[starts] - 1], tokens.numbers[passed[ends] - is_cut[ends]]


def _spoken_breaks(kinds: Bytes, starts: Ints, ends: Ints) -> Bytes:
    """Return the break before each word as punctuation tells it: of a sentence or of a word."""
    breaks = np.full(len(starts), WORD, np.uint8)
    breaks[_after_sentence(kinds, starts, ends)] = SENTENCE
    return breaks


def _line_breaks(breaks: Bytes, kinds: Bytes, starts: Ints) -> Bytes:
    """Return ``breaks`` with those of lines and paragraphs, as white space tells them."""
    lines = np.bincount(starts.searchsorted(_line_ends(kinds)), minlength=len(starts) + 1)[: len(starts)]
    breaks = breaks.copy()
    breaks[lines == 1] = LINE
    breaks[lines > 1] = PARAGRAPH
    return breaks


def _line_ends(kinds: Bytes) -> Ints:
    """Return where lines end, ``\\r\\n`` once."""
    found = np.flatnonzero((kinds & (_NEWLINE | _RETURN)) != 0)
    is_return = (kinds[found] & _RETURN) != 0
    if not is_return.any():
        return found
    followed = (kinds[np.minimum(found + 1, len(kinds) - 1)] & _NEWLINE) != 0
    ends: Ints = found[~(is_return & followed)]
    return ends


def _after_sentence(kinds: Bytes, starts: Ints, ends: Ints) -> Ints:
    """Return the words before which a sentence ends.

    An initial ("J.") and a small letter after a full stop ("e.g. this") end none.
    """
    last = ends[:-1] - 1
    final = kinds[last]
    words = np.flatnonzero((final & (_ENDS | _ENDS_WIDE | _CLOSES)) != 0)
    last, final = last[words], final[words]
    final = np.where((final & _CLOSES) != 0, kinds[last - 1], final)
    narrow = ((final & _ENDS) != 0) & (last - starts[words] > 1) & ((kinds[starts[words + 1]] & _LOWER) == 0)
    after: Ints = words[narrow | ((final & _ENDS_WIDE) != 0)] + 1
    return after


def _long_paragraphs(breaks: Bytes, first: Ints, last: Ints, size_tokens: int) -> Iterator[slice]:
    """Yield the words of each paragraph of more than ``size_tokens`` tokens: no other is cut inside."""
    begins = np.flatnonzero(breaks <= PARAGRAPH)
    ends = np.append(begins[1:], len(breaks))
    for index in np.flatnonzero(last[ends - 1] - first[begins] > size_tokens).tolist():
        yield slice(int(begins[index]), int(ends[index]))


def _unwrap(breaks: Bytes, spoken: Bytes, kinds: Bytes, starts: Ints, ends: Ints) -> None:
    """Take back the line breaks of a paragraph that is only wrapped."""
    heads = np.flatnonzero(breaks == LINE)
    if is_wrapped(starts, ends, heads, (kinds[starts[heads]] & _LOWER) != 0):
        breaks[heads] = spoken[heads]


def _mark_places(breaks: Bytes, text: str, starts: Ints, ends: Ints, places: Sequence[Place]) -> None:
    """Raise the breaks where a section or a page begins; tie a heading to what it stands over: none is alone."""
    breaks[0] = SECTION
    if len(places) < 2 and not (places and places[0].heading):
        return
    words = starts.searchsorted(np.fromiter((place.start for place in places), np.int64, len(places))).tolist()
    above: str | None = None
    tied = 0
    for place, word in zip(places, words, strict=True):
        if word >= len(breaks):
            return
        if place.heading == above:
            breaks[word] = min(int(breaks[word]), PARAGRAPH)
        elif not (word == tied and (place.heading or "").startswith(f"{above} > ")):
            breaks[word] = SECTION
        if place.heading and place.heading != above:
            tied = _after_heading(breaks, text, starts, ends, word, place.heading)
            breaks[tied] = WORD if tied else SECTION
        above = place.heading


def _after_heading(breaks: Bytes, text: str, starts: Ints, ends: Ints, word: int, heading: str) -> int:
    """Return the word after the line that begins at ``word``, if that line is the heading itself; else 0."""
    upcoming = np.flatnonzero(breaks[word + 1 : word + _MAX_HEADING_WORDS] <= LINE)
    if len(upcoming) == 0:
        return 0
    after = word + 1 + int(upcoming[0])
    line = " ".join(text[starts[word] : ends[after - 1]].split())
    return after if heading.rpartition(" > ")[2] in line else 0


def _inner_cuts(cuts: Ints, starts: Ints, ends: Ints) -> Ints:
    """Return the cuts strictly inside the stretches, ascending."""
    begin, stop = cuts.searchsorted(starts, "right"), cuts.searchsorted(ends, "left")
    return np.concatenate([cuts[a:b] for a, b in zip(begin.tolist(), stop.tolist(), strict=True)])
