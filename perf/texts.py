"""Made-up documents for the scripts here: the same for the same seed, no two alike, and quickly made."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Load:
    """What is submitted. ``words``: the length of one document; about 45 of these words make a chunk of 200 tokens."""

    model: str
    documents: int
    words: int


def texts_of(load: Load, *, seed: int) -> list[str]:
    """Return the documents: paragraphs of sentences over a vocabulary with Zipf's distribution."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghilmnoprstuvwy", k=rng.randint(2, 9))) for _ in range(5000)]
    weights = [1 / (rank + 10) for rank in range(len(vocabulary))]
    return [_document(rng.choices(vocabulary, weights, k=load.words), rng) for _ in range(load.documents)]


def _document(words: list[str], rng: random.Random) -> str:
    sentences = []
    at = 0
    while at < len(words):
        length = rng.randint(6, 18)
        sentences.append(" ".join(words[at : at + length]).capitalize() + ".")
        at += length
    return "\n\n".join(" ".join(sentences[first : first + 5]) for first in range(0, len(sentences), 5))
