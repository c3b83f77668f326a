"""From a text to chunks: where each starts and ends, in characters. Reads only the text and the shipped token ranks."""

from .chunks import Chunk, Fit, chunk
from .config import ChunkingConfig, ResolvedChunking, check_size, resolve
from .tokens import count_tokens
from .words import Place

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
