"""Two generations side by side: each question is asked of both, and how far their answers agree is kept."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from penstock.storage.catalog.judgements import Judgement

from .agreement import gain_quality, overlap, rank_agreement
from .asking import DEPTH, Asked, documents, named, passages
from .questions import Question
from .report import K


@dataclass
class Comparison:
    """What was found out so far. ``by_document``: the two cut documents differently, so that passages cannot match."""

    old: Asked
    new: Asked
    by_document: bool
    asked: list[Question] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    judged: int = 0

    @property
    def sides(self) -> tuple[Asked, Asked]:
        return self.old, self.new

    def compare(self, question: Question) -> None:
        """Ask both generations, and keep how far they agree. Raises as `Asked.search`.

        They take turns in being the first, so that neither always finds what the other has brought into memory. Where
        only the old one answers, nothing of that is found any more; where it does not, there is nothing to compare.
        """
        turns = self.sides if len(self.asked) % 2 else self.sides[::-1]
        found = {id(side): side.search(question.text, filter=question.filter, k=self._depth) for side in turns}
        old, new = found[id(self.old)], found[id(self.new)]
        if isinstance(old, str):
            if not isinstance(new, str):
                self.old.missed(old)
            return
        if isinstance(new, str):
            self.new.missed(new)
        else:
            self.old.timings.append(old.timings)
            self.new.timings.append(new.timings)
        ranked = documents if self.by_document else passages
        before = ranked(old.hits)
        after = [] if isinstance(new, str) else ranked(new.hits)
        self.asked.append(question)
        self.overlaps.append(overlap([name for name, _ in before], [name for name, _ in after], k=K))
        self.agreements.append(rank_agreement(before, after, k=K))

    def measure(self, query: str, judgements: Sequence[Judgement]) -> None:
        """Ask both generations a question whose answers are judged. Raises as `Asked.search`."""
        grades: dict[Hashable, int] = {one.source or one.document_id or "": one.grade for one in judgements}
        if not any(grades.values()):
            return
        self.judged += 1
        for side in self.sides:
            found = side.search(query, filter=None, k=DEPTH)
            ranked = [] if isinstance(found, str) else named(found.hits, grades)
            side.qualities.append(gain_quality(ranked, grades, k=K) or 0.0)

    @property
    def _depth(self) -> int:
        return DEPTH if self.by_document else K
