"""How well searches find what is there, measured on a sample of the rows themselves.

Two figures. Self-recall: a row is among the ten nearest to its own vector. Recall: of the ten that are nearest to a
vector beside a row's own (noise of a tenth of its length), by an exact scan of all rows, how many a search finds.
Ties count as found. A row costs one exact scan, so the caller asks for one after the other and stops when it likes.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ids import ChunkId
from ..search.hits import Hit
from ..search.samples import sampled_rows
from ..search.versions import Snapshot

NEAREST = 10
NOISE = 0.1
_TOLERANCE = 1e-5  # of a score: sums in another order differ by so much


@dataclass(frozen=True)
class Sampled:
    """What one row told."""

    found_itself: bool
    recall: float


@dataclass(frozen=True)
class ProbeResult:
    """What all that were asked told. ``wanted`` rows were to be asked, ``asked`` were in the time there was."""

    wanted: int
    asked: int
    k: int
    ef: int
    self_recall: float | None
    recall: float | None
    took_s: float

    def described(self) -> dict[str, Any]:
        """Return the result as every interface tells it, ready for JSON."""
        return {**vars(self)}


class Probe:
    """A sample of the live rows of a snapshot, to be asked one by one. The snapshot is held by the caller.

    Args:
        rows: how many to ask, at most; fewer where there are fewer.
        ef: how wide graphs are walked, as in the searches that are to be judged.
        now: what expired by then is not asked and not found.
    """

    def __init__(self, snapshot: Snapshot, *, rows: int, ef: int, now: float, seed: int = 0) -> None:
        self._snapshot = snapshot
        self._ef = ef
        self._now = now
        self._seed = seed
        self._sample = sampled_rows(snapshot, rows=rows, now=now, random=np.random.default_rng(seed))
        self._began = time.perf_counter()

    def __len__(self) -> int:
        return len(self._sample)

    def ask(self, number: int) -> Sampled:
        """Search for row ``number`` of the sample, and for what is near it. Safe from several threads.

        Raises:
            Damaged: a mapped file is not what it was when it was opened.
        """
        reader, row = self._sample[number]
        vector = reader.segment.row_vectors(np.array([row], np.uint32))[0]
        own = self._search(vector)
        beside = vector + self._noise(vector, number)
        exact = self._snapshot.exactly(beside, k=NEAREST, now=self._now)
        return Sampled(
            _is_among(ChunkId(int(reader.segment.chunk_ids[row])), own, score=self._score(vector)),
            _share(exact, self._search(beside)),
        )

    def result(self, answers: Iterable[Sampled]) -> ProbeResult:
        """Return what these answers say together."""
        told = list(answers)
        return ProbeResult(
            wanted=len(self),
            asked=len(told),
            k=NEAREST,
            ef=max(self._ef, NEAREST),
            self_recall=sum(one.found_itself for one in told) / len(told) if told else None,
            recall=sum(one.recall for one in told) / len(told) if told else None,
            took_s=time.perf_counter() - self._began,
        )

    def _search(self, vector: NDArray[np.float32]) -> list[Hit]:
        return self._snapshot.search(vector, k=NEAREST, ef=self._ef, now=self._now)

    def _noise(self, vector: NDArray[np.float32], number: int) -> NDArray[np.float32]:
        noise = np.random.default_rng([self._seed, number]).standard_normal(len(vector))
        scaled: NDArray[np.float32] = (NOISE * np.linalg.norm(vector) / np.linalg.norm(noise) * noise).astype(
            np.float32
        )
        return scaled

    def _score(self, vector: NDArray[np.float32]) -> float:
        return 0.0 if self._snapshot.metric == "l2" else float(vector @ vector)


def _is_among(chunk_id: ChunkId, hits: list[Hit], *, score: float) -> bool:
    """Say whether the chunk was found, or was crowded out by others that are as near."""
    if len(hits) == NEAREST and hits[-1].score >= score - _TOLERANCE * max(1.0, abs(score)):
        return True
    return any(hit.chunk_id == chunk_id for hit in hits)


def _share(exact: list[Hit], found: list[Hit]) -> float:
    if not exact:
        return 1.0
    least = exact[-1].score - _TOLERANCE * max(1.0, abs(exact[-1].score))
    return sum(hit.score >= least for hit in found) / len(exact)
