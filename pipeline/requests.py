"""How much goes into one request: groups of bounded number and size."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def in_requests(items: Sequence[T], size_of: Callable[[T], int], *, most: int, most_size: int) -> Iterator[list[T]]:
    """Yield ``items`` in order, in groups of at most ``most`` whose sizes sum up to at most ``most_size``.

    One that is larger goes alone.
    """
    request: list[T] = []
    size = 0
    for item in items:
        more = size_of(item)
        if request and (len(request) >= most or size + more > most_size):
            yield request
            request, size = [], 0
        request.append(item)
        size += more
    if request:
        yield request
