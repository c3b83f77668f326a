"""One run of a schedule as the action that does it sees it: what to do, how far it is, and whether to go on."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from penstock.storage import schedules
from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.errors import Conflict, NotFound
from penstock.storage.schedules import Run

from .components import Components
from .errors import RunHandedBack

SAVED_EVERY_S = 2.0  # how far it is, for whoever looks


@dataclass
class RunWork:
    """``progress`` becomes what the history tells of the run, whatever ends it."""

    components: Components
    run: Run
    stopping: Callable[[], bool] = lambda: False
    progress: dict[str, Any] = field(default_factory=dict)
    _saved_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.progress = {**self.run.progress, **self.progress}

    @property
    def ids(self) -> dict[str, str]:
        """What a log line about this run carries."""
        tenant = {} if self.run.tenant is None else {"tenant": str(self.run.tenant)}
        return {**tenant, "schedule": self.run.schedule_id, "run": self.run.id}

    def collection(self) -> CollectionInfo:
        """Return the collection that it is about. Raises Conflict: it was deleted."""
        assert self.run.tenant is not None
        assert self.run.collection is not None
        try:
            found = get_collection(
                self.components.catalog, tenant=self.run.tenant, name=self.run.collection, counted=False
            )
        except NotFound as error:
            raise Conflict(str(error)) from error
        if found.id != self.run.collection_id:
            raise Conflict(f"collection {self.run.collection!r} is another one by now")
        return found

    def go_on(self) -> None:
        """Return when the run may go on; to be called between steps that are short.

        Raises:
            RunHandedBack: this process was told to stop. Conflict: the run was lost.
        """
        if self.stopping():
            raise RunHandedBack("this process was told to stop")
        if time.monotonic() - self._saved_at > SAVED_EVERY_S:
            self.save()

    def save(self) -> None:
        """Keep how far it is. Raises Conflict when the run was lost."""
        schedules.record_progress(self.components.catalog, self.run, self.progress)
        self._saved_at = time.monotonic()
