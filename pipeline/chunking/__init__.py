"""From a text to chunks: where each starts and ends, in characters. Reads nothing but the text and the shipped token ranks."""

from .chunks import Chunk, Fit, Place, chunk
from .config import ChunkingConfig, ResolvedChunking, check_size, resolve
from .tokens import count_tokens

__all__ = [
    "Chunk",
    "ChunkingConfig",
    "Fit",
    "Place",
    "ResolvedChunking",
    "check_size",
    "chunk",
    "count_tokens",
    "resolve",
]
