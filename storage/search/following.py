"""Following the catalog: the version that it points to is opened and checked beside the one that serves, then swapped.

One that is damaged, or of a newer program, is refused, told, and tried again later; the former serves on. It decides
which version is the newest that serves, and nothing else.
"""

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace

from ..catalog.engine import Catalog
from ..catalog.generations import GenerationInfo, generation_info, pointers
from ..errors import Damaged, NotFound, NotKept, NotYet, StorageError, Unavailable, Unsupported
from ..ids import GenerationId, ManifestVersion, TenantId
from .opening import Opener
from .refusals import Refusals
from .shelf import Shelf
from .versions import Snapshot

log = logging.getLogger(__name__)

Pointer = tuple[str | None, ManifestVersion]  # manifest and version of a generation
MOVED_TIMES = 5  # a version whose files went while it was opened was replaced and collected meanwhile


class Follower:
    """Puts the newest version of each generation that is in use on the shelf. Safe between threads.

    Args:
        changed: guards the shelf; whoever waits for a version waits for it.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        shelf: Shelf,
        changed: threading.Condition,
        opener: Opener,
        refusals: Refusals,
        clock: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._shelf = shelf
        self._changed = changed
        self._opener = opener
        self._refusals = refusals
        self._clock = clock
        self._distrusted: set[GenerationId] = set()

    def follow(
        self, generation_id: GenerationId, *, tenant: TenantId | None, deadline: float, seen: Pointer | None = None
    ) -> Snapshot:
        """Bring one generation to the version that the catalog points to, and return what serves now.

        ``seen``: where it pointed a moment ago.

        Raises:
            NotFound: there is no such generation, or it is not the tenant's.
            NotYet: somebody else opens it, and was not ready until ``deadline``.
            Damaged, Unsupported: the version was refused, and there is no former one in use.
            Unavailable: the catalog or the object store did not answer.
        """
        with self._opener.alone(generation_id, what=f"generation {generation_id}", deadline=deadline):
            for _ in range(MOVED_TIMES):
                with suppress(_Moved):
                    return self._advance(generation_id, tenant=tenant, seen=seen)
                seen = None
        raise Unavailable(f"generation {generation_id} changes faster than it can be opened; try again")

    def look(self, generation_ids: Collection[GenerationId]) -> None:
        """Bring those of these generations that are in use to their versions. Never raises: what fails is logged."""
        try:
            found = pointers(self._catalog, generation_ids)
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever the catalog does
            log.warning(
                "The catalog was not read for new versions: %s", error, extra={"action": "snapshots_not_polled"}
            )
            return
        for generation_id in self._behind(generation_ids, found):
            try:
                self.follow(generation_id, tenant=None, deadline=self._clock(), seen=found.get(generation_id))
            except (NotFound, NotYet):
                pass  # deleted, and forgotten by now; or a search is opening it already
            except Exception as error:  # noqa: BLE001  one generation must not keep the others from their versions
                if self._shelf.closed:
                    return
                log.warning(
                    "%s stays at its version: %s", generation_id, error, extra={"action": "snapshot_not_opened"}
                )

    def _behind(
        self, generation_ids: Collection[GenerationId], found: Mapping[GenerationId, Pointer]
    ) -> list[GenerationId]:
        """Return those that are in use and do not serve what was found. Of thousands there are few, if any."""
        none: Pointer = ("", ManifestVersion(0))
        with self._changed:
            newest = [(one, self._shelf.newest(one)) for one in generation_ids]
            return [
                one
                for one, snapshot in newest
                if snapshot is not None and not self._serves(snapshot, manifest=found.get(one, none)[0])
            ]

    def distrust(self, generation_id: GenerationId) -> None:
        """Let the next look open what serves again, sharing nothing with what is open: a file of it is damaged."""
        with self._changed:
            self._distrusted.add(generation_id)

    def _advance(self, generation_id: GenerationId, *, tenant: TenantId | None, seen: Pointer | None) -> Snapshot:
        with self._changed:
            former = self._shelf.use(generation_id)
        if former is not None and seen is not None and seen[1] > former.version:
            generation = replace(former.generation, manifest=seen[0], version=seen[1])  # all else stays for its life
        else:
            generation = self._generation(generation_id)
        if tenant not in {None, generation.tenant_id}:
            raise not_found(generation_id)
        if former is not None and self._may_serve_on(former, manifest=generation.manifest):
            return former
        refused = self._refusals.standing(generation)
        if refused is None:
            try:
                return self._open(generation, former=former)
            except NotKept as error:
                raise _Moved from error
            except (Damaged, Unsupported) as error:
                refused = self._refuse(generation, error, former=former)
            except OSError as error:
                raise Unavailable(f"generation {generation_id} could not be read: {error}. Try again.") from error
        if former is None:
            raise refused
        return former

    def _may_serve_on(self, snapshot: Snapshot, *, manifest: str | None) -> bool:
        with self._changed:
            return self._serves(snapshot, manifest=manifest)

    def _serves(self, snapshot: Snapshot, *, manifest: str | None) -> bool:
        """Say what `_may_serve_on` does, to whoever holds the lock."""
        return snapshot.manifest_name == manifest and snapshot.generation_id not in self._distrusted

    def _generation(self, generation_id: GenerationId) -> GenerationInfo:
        try:
            return generation_info(self._catalog, generation_id)
        except NotFound:
            self._refusals.forget(generation_id)
            with self._changed:
                self._distrusted.discard(generation_id)
                self._shelf.forget(generation_id)
            raise

    def _open(self, generation: GenerationInfo, *, former: Snapshot | None) -> Snapshot:
        with self._changed:
            anew = generation.id in self._distrusted
        snapshot = self._opener.open(generation, former=None if anew else former)
        if former is not None:  # or a search waits for it
            snapshot.warm(former=former)
        with self._changed:
            self._shelf.put_newest(snapshot)
            self._refusals.forget(generation.id)
            if anew:
                self._distrusted.discard(generation.id)
            self._changed.notify_all()
        return snapshot

    def _refuse(self, generation: GenerationInfo, error: StorageError, *, former: Snapshot | None) -> StorageError:
        if generation_info(self._catalog, generation.id).manifest != generation.manifest:
            raise _Moved
        self._refusals.add(generation, error, former=None if former is None else former.version)
        with self._changed:
            self._distrusted.discard(generation.id)  # what is open of it serves on, until a search fails again
        return error


class _Moved(Exception):
    """Raised when the pointer changed while its old target was opened: look again."""


def not_found(generation_id: GenerationId) -> NotFound:
    return NotFound(f"there is no generation {generation_id!r}")
