"""Remembers searches for a moment and records them in the background: the search itself runs no SQL and never waits.

Some are lost on purpose: those above what is kept between two writes, longer ones, and those of an outage. What is
remembered takes a few megabytes at most. Texts are never logged.
"""

import json
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from ..ids import CollectionId, TenantId
from .engine import Catalog
from .recorded_queries import AskedQuery, record_queries
from .values import is_storable

log = logging.getLogger(__name__)

EVERY_S = 10.0
MOST, MOST_OF_ONE = 1_000, 100  # searches between two writes: of all collections, and of one
MAX_RECORDED_CHARACTERS = 2_000  # of a text, and of a filter as JSON


class QueryRecorder:
    """Records what one process answers. Safe between threads; the thread that writes begins with the first search.

    Args:
        keep: how many texts of each collection are kept; 0 records nothing.
        clock: seconds since 1970.
    """

    def __init__(
        self, catalog: Catalog, *, keep: int, every_s: float = EVERY_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._catalog = catalog
        self._keep = keep
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._asked: defaultdict[tuple[TenantId, CollectionId], list[AskedQuery]] = defaultdict(list)
        self._count = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def note(self, tenant: TenantId, collection_id: CollectionId, *, text: str | None, filter: Any = None) -> None:  # noqa: A002
        """Remember one search that was answered, if there is room. ``filter``: as its asker wrote it."""
        if not self._keep or self._count >= MOST or not _is_short(text, filter):
            return
        with self._lock:
            if len(asked := self._asked[tenant, collection_id]) < MOST_OF_ONE and not self._stop.is_set():
                asked.append(AskedQuery(text, None if text is None else filter))
                self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Record what is remembered; what cannot be now is forgotten."""
        with self._lock:
            asked, self._asked, self._count = self._asked, defaultdict(list), 0
        try:
            record_queries(self._catalog, asked, keep=self._keep, now=self._clock())
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever the catalog does
            log.warning("Queries were not recorded: %s", type(error).__name__, extra={"action": "queries_not_recorded"})

    def close(self) -> None:
        """Record what is remembered, and nothing more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.flush()


def _is_short(text: str | None, filter: Any) -> bool:  # noqa: A002
    if text is not None and (len(text) > MAX_RECORDED_CHARACTERS or not is_storable(text)):
        return False
    if text is None or filter is None:
        return True
    told = json.dumps(filter, ensure_ascii=False)
    return len(told) <= MAX_RECORDED_CHARACTERS and is_storable(told)
