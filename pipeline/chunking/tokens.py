"""Where the tokens of a text begin and end, in characters. One encoding of the whole text; knows nothing of chunks.

The encoding is cl100k_base. Its ranks are shipped beside this module, so nothing is downloaded. Special tokens do not
exist here: ``<|endoftext|>`` in a document is text like any other.
"""

import base64
import hashlib
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import tiktoken

RANKS_SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
# As tiktoken defines it (tiktoken_ext/openai_public.py).
_PATTERN = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|"""
    r"""\s+(?!\S)|\s"""
)
_SLICE_CHARACTERS = 1 << 17
_SURROGATES = re.compile("[\ud800-\udfff]")
_CONTINUES = 0b1000_0000  # a byte that continues a character is 10xxxxxx

Ints = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.uint8]
_NONE: Ints = np.zeros(1, np.int64)


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The places where a text may be cut without splitting a token or a character.

    ``cuts``: int64 characters, ascending, from 0 to ``len(text)``. ``numbers``: int64, the tokens before each cut; it
    skips a number where a token ends inside a character.
    """

    cuts: Ints
    numbers: Ints


@cache
def encoding() -> "tiktoken.Encoding":
    """Return the encoding, built at the first call of the process (about 0.4 s).

    Raises:
        RuntimeError: the shipped ranks are not what they were when shipped.
    """
    import tiktoken  # noqa: PLC0415

    return tiktoken.Encoding("cl100k_base", pat_str=_PATTERN, mergeable_ranks=_ranks(), special_tokens={})


def count_tokens(text: str) -> int:
    """Return the number of cl100k tokens of ``text``."""
    return len(_token_bytes(_encodable(text)))


def map_tokens(text: str) -> TokenMap:
    """Return where the tokens of ``text`` end. A lone surrogate, which has no UTF-8, counts as U+FFFD."""
    text = _encodable(text)
    ends = np.cumsum(_token_bytes(text), dtype=np.int64)
    if not text.isascii():
        return _characters(text.encode(), ends)
    return TokenMap(np.concatenate((_NONE, ends)), np.arange(len(ends) + 1, dtype=np.int64))


def _token_bytes(text: str) -> Sizes:
    """Return the uint8 size in bytes of each token of ``text``."""
    if len(text) <= _SLICE_CHARACTERS:
        return _measured(text)
    return np.concatenate([_measured(part) for part in _slices(text)])


def _measured(text: str) -> Sizes:
    # tiktoken's encode_to_numpy is half slower: it looks for special tokens first.
    return _rank_bytes().take(array("I", encoding().encode_ordinary(text)))


def _slices(text: str) -> Iterator[str]:
    """Yield ``text`` in parts, divided before a space, where tokens are divided too.

    The pattern's engine panics on a run of a million spaces, and its time grows faster than a run without any.
    """
    start = 0
    while len(text) - start > _SLICE_CHARACTERS:
        end = text.rfind(" ", start + 1, start + _SLICE_CHARACTERS)
        end = end if end > start else start + _SLICE_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


def _encodable(text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return _SURROGATES.sub("\ufffd", text)
    return text


def _characters(data: bytes, ends: Ints) -> TokenMap:
    """Turn byte positions into character positions; drop those inside a character."""
    begins = (np.frombuffer(data, np.uint8) & 0b1100_0000) != _CONTINUES
    before = np.zeros(len(data) + 1, np.int64)
    np.cumsum(begins, out=before[1:])
    numbers = np.arange(len(ends) + 1, dtype=np.int64)
    places = np.concatenate((_NONE, ends))
    whole = np.append(begins, True)[places]
    return TokenMap(before[places[whole]], numbers[whole])


@cache
def _ranks() -> dict[bytes, int]:
    data = files(__package__).joinpath("data", "cl100k_base.tiktoken").read_bytes()
    if hashlib.sha256(data).hexdigest() != RANKS_SHA256:
        raise RuntimeError("The token ranks shipped with Penstock are damaged: install it again.")
    return {
        base64.b64decode(token): int(rank) for token, _, rank in (line.partition(b" ") for line in data.splitlines())
    }


@cache
def _rank_bytes() -> Sizes:
    sizes = np.zeros(max(_ranks().values()) + 1, np.uint8)
    for token, rank in _ranks().items():
        sizes[rank] = len(token)
    return sizes
