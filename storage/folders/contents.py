"""What tells the content of a file from that of another."""

from hashlib import blake2b
from pathlib import Path


def content_hash(path: Path) -> str:
    """Return the blake2b-256 of a file in hex, without holding its bytes: what the catalog keeps of a document."""
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    return digest.hexdigest()
