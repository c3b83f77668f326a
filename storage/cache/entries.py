"""What is looked up and what is kept: the names of vectors, and their bytes with a checksum."""

import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..ids import TenantId

DIGEST_BYTES = 16
SHARED = "shared"
_CHECKSUM_BYTES = 4


def text_digest(text: str) -> bytes:
    """Return what a text is known by in the cache: blake2b-128."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES).digest()


def scope_of(tenant: TenantId) -> str:
    """Return what a tenant's names begin with. One may be called "shared", so its scope must not look like that."""
    return f"tenant/{tenant}"


@dataclass(frozen=True)
class Wanted:
    """Texts, each once, whose vectors a tenant needs.

    ``texts`` i64[n]: how often each occurs; ``tokens`` i64[n]: of all its occurrences. They are what is counted.
    ``usd_per_token``: what the model takes for embedding them; 0 where that is not known.
    """

    tenant: TenantId
    model: str
    dimensions: int
    digests: Sequence[bytes]
    texts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    usd_per_token: float = 0.0

    def __len__(self) -> int:
        return len(self.digests)

    def only(self, rows: NDArray[np.int64]) -> "Wanted":
        """Return these rows alone."""
        digests = [self.digests[row] for row in rows.tolist()]
        return replace(self, digests=digests, texts=self.texts[rows], tokens=self.tokens[rows])

    def names(self, *, shared: bool) -> list[str]:
        """Return the name of each text's vector, below the prefix of all."""
        prefix = f"{SHARED if shared else scope_of(self.tenant)}:{self.model}:{self.dimensions}:"
        return [prefix + digest.hex() for digest in self.digests]


def seal(vector: NDArray[np.float32]) -> bytes:
    """Return f32[d] as bytes, and a checksum."""
    body = np.ascontiguousarray(vector, "<f4").tobytes()
    return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def unseal(value: bytes, *, dimensions: int) -> NDArray[np.float32] | None:
    """Return f32[d]; None when these are not the bytes of such a vector, or it is not finite."""
    body = memoryview(value)[:-_CHECKSUM_BYTES]
    if len(body) != 4 * dimensions or zlib.crc32(body) != int.from_bytes(value[-_CHECKSUM_BYTES:], "little"):
        return None
    vector = np.frombuffer(body, "<f4", dimensions)
    return vector if np.isfinite(vector).all() else None
