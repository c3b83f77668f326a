"""Lets in who has the installation's key. Everything is behind it but the paths listed here."""

import hmac
import time
from collections.abc import Callable
from hashlib import blake2b

import anyio
import anyio.to_thread

from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.tenants import admin_key_matches
from penstock.storage.errors import StorageError

from ..errors import Refused

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/docs"})
REMEMBERED_S = 30.0  # how long a replaced key may still be taken
GUESSES = 2  # looked up at once: wrong keys must not take the threads of those who have the right one
LONGEST_KEY = 1024


class KeyGate:
    """Compares keys with the catalog's, and remembers the last one that matched as a digest, never as text."""

    def __init__(self, catalog: Catalog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._clock = clock
        self._guesses = anyio.CapacityLimiter(GUESSES)
        self._matched = b""
        self._until = 0.0

    async def check(self, authorization: str | None) -> None:
        """Return if the header holds the key.

        Raises:
            Refused: 401, the same for every reason but a header that is missing.
        """
        key = _bearer(authorization)
        digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=32).digest()
        if self._clock() < self._until and hmac.compare_digest(digest, self._matched):
            return
        if len(key) > LONGEST_KEY or not await self._looked_up(key):
            raise _unauthorized("the key is not this installation's", error="invalid_token")
        self._matched, self._until = digest, self._clock() + REMEMBERED_S

    async def holds_key(self, authorization: str | None) -> bool:
        """Say whether the header holds the key. Where that cannot be found out it does not."""
        try:
            await self.check(authorization)
        except (Refused, StorageError):
            return False
        return True

    async def refuses(self, authorization: str | None) -> bool:
        """Say whether the header is known to hold no key. Where that cannot be found out it may."""
        try:
            await self.check(authorization)
        except Refused:
            return True
        except StorageError:
            return False
        return False

    async def _looked_up(self, key: str) -> bool:
        return await anyio.to_thread.run_sync(admin_key_matches, self._catalog, key, limiter=self._guesses)


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise _unauthorized("send the key that `penstock up` printed as 'Authorization: Bearer <key>'")
    return key.strip()


def _unauthorized(message: str, *, error: str | None = None) -> Refused:
    challenge = 'Bearer realm="penstock"' + (f', error="{error}"' if error else "")
    return Refused(message, status=401, code="unauthorized", headers={"WWW-Authenticate": challenge})
