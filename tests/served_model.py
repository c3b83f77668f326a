"""What must be searchable after all that was accepted, as a plain dictionary, and how it differs from what is found.

A text says in each of its sentences which document and which version it is, so that no chunk of another is mistaken
for one of its own.
"""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping

WORDS = ["river", "gate", "water", "turbine", "valve", "pressure", "dam", "head", "flow", "pipe", "wheel", "power"]
Found = Mapping[str, list[tuple[int, str]]]  # by source: (ordinal, text) of each chunk that a search finds


def text_of(source: str, version: int, *, sentences: int = 8, rng: random.Random | None = None) -> str:
    """Return the text of one version of one document; without ``rng`` always the same."""
    words = rng or random.Random(f"{source}/{version}")
    return " ".join(
        f"{source} says in version {version}, sentence {number}, that {' '.join(words.choices(WORDS, k=8))}."
        for number in range(sentences)
    )


def by_source(chunks: Iterable[tuple[str, int, str]]) -> dict[str, list[tuple[int, str]]]:
    """Group found chunks (source, ordinal, text); each list in order, repeated chunks repeated."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for source, ordinal, text in chunks:
        found[source].append((ordinal, text))
    return {source: sorted(own) for source, own in found.items()}


def is_whole(chunks: list[tuple[int, str]], text: str) -> bool:
    """Say whether these are all chunks of ``text``, each once: from its first word to its last."""
    return (
        [ordinal for ordinal, _ in chunks] == list(range(len(chunks)))
        and text.startswith(chunks[0][1])
        and text.endswith(chunks[-1][1])
        and all(chunk in text for _, chunk in chunks)
        and sum(len(chunk) for _, chunk in chunks) >= len(text) - 2 * len(chunks)
    )


def differences(found: Found, expected: Mapping[str, str]) -> list[str]:
    """Say how what is found differs from the texts that must be there; an empty list: in nothing."""
    missing = [f"{source} is not searchable" for source in sorted(expected.keys() - found.keys())]
    surplus = [f"{source} is searchable, and must not be" for source in sorted(found.keys() - expected.keys())]
    broken = [
        f"{source} is not searchable exactly once at its newest version: found {_told(found[source])}, "
        f"expected {expected[source][:60]!r}…"
        for source in sorted(found.keys() & expected.keys())
        if not is_whole(found[source], expected[source])
    ]
    return missing + surplus + broken


def _told(chunks: list[tuple[int, str]]) -> str:
    return ", ".join(f"{ordinal}: {text[:40]!r}" for ordinal, text in chunks)
