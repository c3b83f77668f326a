"""From what was compared to a verdict, in sentences that say what to do."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from penstock.storage.ids import ManifestVersion

from .agreement import mean, percentile
from .asking import Asked
from .comparison import Comparison
from .report import K, ShadowOptions, ShadowReport, ShadowSide


@dataclass(frozen=True)
class Wanted:
    """How many questions there were to ask, and what is known of searches by vector."""

    questions: int
    judged: int
    by_vector: int


def concluded(comparison: Comparison, wanted: Wanted, options: ShadowOptions, *, took_s: float) -> ShadowReport:
    """Return the report on a comparison that has ended."""
    reasons = tuple(_reasons(comparison, wanted, options))
    origins = Counter(question.origin for question in comparison.asked)
    compared = bool(comparison.asked)
    return ShadowReport(
        passed=not reasons,
        reasons=reasons,
        notes=tuple(_notes(comparison, wanted, options, sampled=origins["sampled"])),
        compared="documents" if comparison.by_document else "passages",
        recorded=origins["recorded"],
        sampled=origins["sampled"],
        by_vector=wanted.by_vector,
        overlap=round(mean(comparison.overlaps), 4) if compared else None,
        least_overlap=round(percentile(comparison.overlaps, 0.1), 4) if compared else None,
        rank_agreement=round(mean(comparison.agreements), 4) if compared else None,
        judged=comparison.judged,
        old=_side(comparison.old),
        new=_side(comparison.new),
        thresholds=options.thresholds,
        took_s=round(took_s, 3),
    )


def _side(asked: Asked) -> ShadowSide:
    generation = asked.generation
    return ShadowSide(
        generation=generation.id,
        model=generation.model,
        dimensions=generation.dimensions,
        quantization=generation.quantization,
        version=ManifestVersion(asked.version),
        chunks=asked.chunks,
        latency=asked.latency(),
        ndcg=round(mean(asked.qualities), 4) if asked.qualities else None,
        unanswered=asked.unanswered,
        because=asked.because,
    )


def _reasons(comparison: Comparison, wanted: Wanted, options: ShadowOptions) -> Iterator[str]:
    """Yield why the new generation may not take over."""
    limits, count = options.thresholds, len(comparison.asked)
    if comparison.old.chunks and not comparison.new.chunks:
        yield "the new generation has no chunks, and the old one has: let it be built first"
        return
    least = min(limits.min_queries, wanted.questions)
    if count < least or (comparison.old.chunks and not count):
        yield f"only {count} questions were compared, and {max(1, least)} have to be: give the check more time"
    for name, values, threshold in (
        (f"overlap@{K}", comparison.overlaps, limits.min_overlap),
        ("rank agreement", comparison.agreements, limits.min_rank_agreement),
    ):
        if values and threshold is not None and mean(values) < threshold:
            yield f"{name} is {mean(values):.3f}, and {threshold:.3f} is the least that is allowed"
    old, new = (mean(side.qualities) if side.qualities else None for side in comparison.sides)
    if old is not None and new is not None and limits.max_ndcg_drop is not None and old - new > limits.max_ndcg_drop:
        yield f"nDCG@{K} falls from {old:.3f} to {new:.3f}, and may fall by {limits.max_ndcg_drop:.3f}"
    before, after = (side.latency().p50_ms for side in comparison.sides)
    if before and after and limits.max_slowdown is not None and after > limits.max_slowdown * before:
        yield f"a search takes {after / before:.1f} times as long, and {limits.max_slowdown:.1f} times is allowed"


def _notes(comparison: Comparison, wanted: Wanted, options: ShadowOptions, *, sampled: int) -> Iterator[str]:
    """Yield what the figures do not say."""
    if not comparison.old.chunks:
        yield "the old generation has no chunks: there is nothing to compare"
    if sampled:
        yield (
            f"{sampled} of {len(comparison.asked)} questions are sentences out of the collection's own chunks, for too "
            "few searches were recorded: both generations find such a chunk easily, so real searches agree less"
        )
    if wanted.by_vector:
        yield f"{wanted.by_vector:,} searches came as vectors, which no other model can answer: they were left out"
    if comparison.by_document:
        yield "the two generations cut documents differently: documents were compared, and not passages"
    if len(comparison.asked) + comparison.old.unanswered < wanted.questions or comparison.judged < wanted.judged:
        asked, all_ = len(comparison.asked) + comparison.judged, wanted.questions + wanted.judged
        yield f"{asked} of {all_} questions were compared: the others had no time, no answer, or no grade above 0"
    for side, name in ((comparison.new, "new"), (comparison.old, "old")):
        if side.unanswered:
            yield f"only the {name} generation could not answer {side.unanswered} questions: {side.because}"
    if comparison.judged < options.thresholds.min_queries and comparison.judged:
        yield f"nDCG rests on few questions ({comparison.judged}): judge {options.thresholds.min_queries} or more"
