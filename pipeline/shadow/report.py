"""What a shadow check is asked and what it says: values only."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from penstock.storage.ids import GenerationId, ManifestVersion

K = 10  # hits that are compared


@dataclass(frozen=True)
class ShadowThresholds:
    """Below which a new generation is refused. None: not looked at.

    ``min_overlap``, ``min_rank_agreement``: means over the questions, 0 to 1. ``max_ndcg_drop``: how much nDCG@10 may
    fall, where there are judgements. ``max_slowdown``: how many times as long as before a search may take, at the
    median. ``min_queries``: questions that have to be compared, unless the collection is too small to ask so many.
    """

    min_overlap: float | None = 0.3
    min_rank_agreement: float | None = None
    max_ndcg_drop: float | None = 0.02
    max_slowdown: float | None = None
    min_queries: int = 20


@dataclass(frozen=True)
class ShadowOptions:
    """``queries``: how many to compare at most, likewise judged questions. ``timeout_s``: how long the check may take.

    ``ef``: how wide graphs are walked, as searches are when nothing else is asked for. ``seed``: of what is sampled.
    """

    thresholds: ShadowThresholds = ShadowThresholds()
    queries: int = 100
    timeout_s: float = 120.0
    ef: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of a search, and of the embedding in it; None where nothing was searched."""

    p50_ms: float | None
    p95_ms: float | None
    embedding_p50_ms: float | None


@dataclass(frozen=True)
class ShadowSide:
    """One of the two generations. ``ndcg``: mean nDCG@10 over the judged questions, None without any.

    ``unanswered``: questions that it could not answer and the other one could; ``because``: of the first of them.
    """

    generation: GenerationId
    model: str
    dimensions: int
    quantization: str
    version: ManifestVersion
    chunks: int
    latency: Latency
    ndcg: float | None
    unanswered: int
    because: str | None


@dataclass(frozen=True)
class ShadowReport:
    """The verdict: ``passed``, or the ``reasons`` why not; ``notes``: what to know beside the figures.

    ``compared``: ``passages`` where both generations cut documents in the same way, else ``documents``. ``recorded``
    and ``sampled``: how many questions of each kind were compared; ``by_vector``: how many searches were by vector,
    which no other model can answer. ``overlap`` and ``rank_agreement``: means, None where nothing was compared;
    ``least_overlap``: the tenth part of the questions have this or less. ``judged``: questions with judgements.
    """

    passed: bool
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    compared: Literal["passages", "documents"]
    recorded: int
    sampled: int
    by_vector: int
    overlap: float | None
    least_overlap: float | None
    rank_agreement: float | None
    judged: int
    old: ShadowSide
    new: ShadowSide
    thresholds: ShadowThresholds
    took_s: float
    k: int = field(default=K)

    def described(self) -> dict[str, Any]:
        """Return the report as every interface tells it, and as a catalog can keep it: ready for JSON."""
        return asdict(self)
