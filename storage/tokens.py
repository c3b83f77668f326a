"""Tokens: what a caller hands back to see at least what it was told of. To callers their text means nothing."""

from .ids import GenerationId, ManifestVersion

_MAX_DIGITS = 18


def token_of(generation_id: GenerationId, version: ManifestVersion) -> str:
    """Return the text that `read_token` understands."""
    return f"{generation_id}:{version}"


def read_token(text: str) -> tuple[GenerationId, ManifestVersion]:
    """Return what `token_of` was given. Raises ValueError."""
    generation_id, _, version = text.rpartition(":")
    if not generation_id or not (version.isascii() and version.isdigit()) or len(version) > _MAX_DIGITS:
        raise ValueError(text)
    return GenerationId(generation_id), ManifestVersion(int(version))
