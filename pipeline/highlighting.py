"""Which words of a passage a query speaks of, so that a person sees at once why it was found.

For display only: nothing is ranked by it, and a passage found by its meaning alone may have no such word.
"""

import re
from functools import lru_cache

Span = tuple[int, int]

WORD = re.compile(r"[^\W_]+")
# Scripts that put no space between words.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STOP_WORDS = """
a about all also am an and any are as at be been but by can could did do does for from had has have he her him his how
i if in into is it its me my no not of on or our she should so some than that the their them then there these they this
those to up us was we were what when where which who whom whose why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


def highlight(text: str, query: str) -> list[Span]:
    """Return the spans of ``text`` that are words of ``query``, in order and apart from each other.

    Case is ignored, and so are the English endings -s, -es, -ing and -ed. Stop words count only if the query has no
    other word. In scripts without spaces a word of the query is found anywhere.
    """
    words = [match[0].lower() for match in WORD.finditer(query)]
    sought = {word for word in words if word not in STOP_WORDS} or set(words)
    stems = {_stem(word) for word in sought}
    spans = [match.span() for match in WORD.finditer(text) if _stem(match[0].lower()) in stems]
    if unspaced := sorted((word for word in sought if UNSPACED.search(word)), key=len, reverse=True):
        spans += [match.span() for match in re.finditer("|".join(map(re.escape, unspaced)), text, re.IGNORECASE)]
    return _joined(spans)


@lru_cache(maxsize=65_536)
def _stem(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        word = f"{word[:-3]}y"
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] and word.isalpha() else word


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
