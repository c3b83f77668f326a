"""Versions that a reader would not open, because a file of theirs is missing, damaged or from a newer program."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..catalog.collections import GenerationInfo
from ..errors import StorageError
from ..ids import GenerationId, ManifestVersion

log = logging.getLogger(__name__)

REFUSED_S = 10.0  # a refused version is tried again after this time: someone may have restored its files


@dataclass(frozen=True)
class _Refusal:
    manifest: str
    until: float
    error: StorageError


class Refusals:
    """What was refused last of each generation. Safe between threads.

    ``clock``: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self.count = 0  # since this was made
        self._clock = clock
        self._lock = threading.Lock()
        self._refusals: dict[GenerationId, _Refusal] = {}

    def add(self, generation: GenerationInfo, error: StorageError, *, former: ManifestVersion | None) -> None:
        """Refuse the version that the generation points to, for a while. Said in the log once per version.

        ``former``: the version that serves instead, if one does.
        """
        assert generation.manifest is not None
        with self._lock:
            known = self._refusals.get(generation.id)
            self._refusals[generation.id] = _Refusal(generation.manifest, self._clock() + REFUSED_S, error)
            self.count += 1
        if known is None or known.manifest != generation.manifest:
            instead = "searches get an error" if former is None else f"version {former} serves on"
            log.error(
                "Version %d of %s is refused, %s: %s",
                generation.version,
                generation.id,
                instead,
                error,
                extra={"action": "snapshot_refused", "tenant": generation.tenant_id, "generation": generation.id},
            )

    def standing(self, generation: GenerationInfo) -> StorageError | None:
        """Return why the version that the generation points to is not tried again yet."""
        with self._lock:
            known = self._refusals.get(generation.id)
        stands = known is not None and known.manifest == generation.manifest and known.until > self._clock()
        return known.error if known is not None and stands else None

    def last(self, generation_id: GenerationId) -> StorageError | None:
        """Return why a version of the generation was refused, if that was the last thing that was tried."""
        with self._lock:
            known = self._refusals.get(generation_id)
        return known.error if known else None

    def forget(self, generation_id: GenerationId) -> None:
        """A version was opened, or the generation is gone."""
        with self._lock:
            self._refusals.pop(generation_id, None)
