"""A window of a fixed number of tokens that slides over a text. Cuts where it must, words included."""

from .tokens import Ints, TokenMap


def slide(tokens: TokenMap, *, size_tokens: int, overlap_tokens: int) -> tuple[Ints, Ints]:
    """Return the int64 starts and ends of the windows, in characters; they cover the text without gaps.

    Each holds at most ``size_tokens`` tokens and begins at most ``overlap_tokens`` before the end of the one before. A
    character of several tokens is never split, so a window may hold a few tokens fewer.
    """
    numbers, last = tokens.numbers, len(tokens.numbers) - 1
    begins, ends = [0], [_end(numbers, 0, size_tokens)]
    while ends[-1] < last:
        begin = int(numbers.searchsorted(numbers[ends[-1]] - overlap_tokens))
        if begin <= begins[-1] or _end(numbers, begin, size_tokens) <= ends[-1]:
            begin = ends[-1]
        begins.append(begin)
        ends.append(_end(numbers, begin, size_tokens))
    return tokens.cuts[begins], tokens.cuts[ends]


def _end(numbers: Ints, begin: int, size_tokens: int) -> int:
    return max(int(numbers.searchsorted(numbers[begin] + size_tokens, "right")) - 1, begin + 1)
