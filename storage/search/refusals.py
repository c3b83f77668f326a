"""Versions that a reader would not open or could not search, because a file of theirs is missing, damaged or too new.

Each is counted, and told in the log once; a version that was refused is not tried again for a while.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from ..catalog.generations import GenerationInfo
from ..errors import StorageError
from ..ids import GenerationId, ManifestVersion

log = logging.getLogger(__name__)

REFUSED_S = 10.0  # a refused version is tried again after this time: someone may have restored its files
KNOWN_MAX = 1_000

_Key = tuple[GenerationId, ManifestVersion | None]  # None: the version that the generation points to


@dataclass(frozen=True)
class _Refusal:
    manifest: str | None
    until: float
    error: StorageError


class Refusals:
    """What was refused last of each generation, and of its past versions. Safe between threads.

    Args:
        clock: monotonic seconds.
        on_refused: called for each refusal, and for each version of which a search found a file damaged.
    """

    def __init__(self, *, clock: Callable[[], float], on_refused: Callable[[], object] = lambda: None) -> None:
        self.count = 0  # since this was made
        self._clock = clock
        self._on_refused = on_refused
        self._lock = threading.Lock()
        self._refusals: dict[_Key, _Refusal] = {}
        self._found: dict[_Key, _Refusal] = {}

    def add(
        self,
        generation: GenerationInfo,
        error: StorageError,
        *,
        former: ManifestVersion | None = None,
        past: bool = False,
    ) -> None:
        """Refuse the version that the generation points to, for a while. Said in the log once per version.

        Args:
            former: the version that serves instead, if one does.
            past: it is one that was asked for by name, and not the newest.
        """
        key = _key(generation, past=past)
        if self._note(self._refusals, key, generation, error):
            instead = "searches get an error" if former is None else f"version {former} serves on"
            if former == generation.version:
                instead = "what is open of it serves on"
            self._tell(f"is refused, {instead}", generation, error, action="snapshot_refused")

    def found(self, generation: GenerationInfo, error: StorageError) -> bool:
        """Tell that a search met damage in an opened version; False: that was told a moment ago."""
        key = (generation.id, generation.version)
        with self._lock:
            known = self._found.get(key)
        if known is not None and known.until > self._clock():
            return False
        if self._note(self._found, key, generation, error):
            self._tell("is damaged while it is searched", generation, error, action="snapshot_damaged")
        return True

    def standing(self, generation: GenerationInfo, *, past: bool = False) -> StorageError | None:
        """Return why the version that the generation points to is not tried again yet."""
        with self._lock:
            known = self._refusals.get(_key(generation, past=past))
        stands = known is not None and known.manifest == generation.manifest and known.until > self._clock()
        return known.error if known is not None and stands else None

    def last(self, generation_id: GenerationId) -> StorageError | None:
        """Return why the newest version of the generation was refused, if that was the last thing that was tried."""
        with self._lock:
            known = self._refusals.get((generation_id, None))
        return known.error if known else None

    def forget(self, generation_id: GenerationId, version: ManifestVersion | None = None) -> None:
        """The newest version was opened, or this past one, or the generation is gone."""
        with self._lock:
            self._refusals.pop((generation_id, version), None)

    def _note(self, known: dict[_Key, _Refusal], key: _Key, generation: GenerationInfo, error: StorageError) -> bool:
        """Count it; return whether it is news."""
        with self._lock:
            former = known.get(key)
            if former is None and len(known) >= KNOWN_MAX:
                known.clear()
            known[key] = _Refusal(generation.manifest, self._clock() + REFUSED_S, error)
            self.count += 1
        self._on_refused()
        return former is None or former.manifest != generation.manifest

    @staticmethod
    def _tell(what: str, generation: GenerationInfo, error: StorageError, *, action: str) -> None:
        log.error(
            "Version %d of %s %s: %s",
            generation.version,
            generation.id,
            what,
            error,
            extra={"action": action, "tenant": generation.tenant_id, "generation": generation.id},
        )


def _key(generation: GenerationInfo, *, past: bool) -> _Key:
    return generation.id, generation.version if past else None
