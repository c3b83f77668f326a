"""The header ``Idempotency-Key``: read, and one request of a key at a time. What a key stands for, the ledger knows."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import Request

from penstock.storage.limits import MAX_IDEMPOTENCY_KEY_CHARACTERS

from ..errors import Refused

HEADER = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"
RETRY_AFTER_S = 1.0
_KEY = re.compile(f"[!-~]{{1,{MAX_IDEMPOTENCY_KEY_CHARACTERS}}}")


def given_key(request: Request) -> str | None:
    """Return the key of a request, without the quotes that a structured header has. Raises Refused: it is none."""
    given = request.headers.getlist(HEADER)
    if not given:
        return None
    key = given[0].strip()
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if len(given) > 1 or not _KEY.fullmatch(key):
        raise Refused(
            f"{HEADER} is no key: send one of 1 to {MAX_IDEMPOTENCY_KEY_CHARACTERS} visible ASCII characters, such as "
            "a UUID",
            code="invalid_idempotency_key",
            param=HEADER,
        )
    return key


class KeysInUse:
    """The keys whose requests this process works on. For one event loop.

    Requests of one key that reach several processes are told apart when the first of them is committed.
    """

    def __init__(self) -> None:
        self._used: set[tuple[str, str]] = set()

    @contextmanager
    def used(self, tenant: str, key: str | None) -> Iterator[None]:
        """Keep the key of a tenant for the time of the block. Raises Refused: 409 when another request has it."""
        if key is None:
            yield
            return
        if (tenant, key) in self._used:
            raise Refused(
                "a request with this idempotency key is still being worked on: ask again for its answer",
                status=409,
                code="idempotency_key_in_use",
                param=HEADER,
                retry_after_s=RETRY_AFTER_S,
            )
        self._used.add((tenant, key))
        try:
            yield
        finally:
            self._used.discard((tenant, key))
