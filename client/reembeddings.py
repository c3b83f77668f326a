"""What the client can do to embed a collection again: a part of `Penstock`."""

import time
from collections.abc import Callable, Collection
from typing import Any

from .errors import Busy
from .session import Session
from .transport import LONGEST_POLL_S, worded
from .wire import Chunking, NewReembedding, Quantization, Reembedding, ReembeddingChange

RESTS = ("ready", "refused", "switched", "returned", "done", "cancelled")


class Reembeddings(Session):
    """The methods of `Penstock` about re-embeddings."""

    def reembed(  # noqa: PLR0913  (the terms of a re-embedding are what they are)
        self,
        collection: str,
        *,
        model: str | None = None,
        dimensions: int | None = None,
        chunking: Chunking | None = None,
        quantization: Quantization | None = None,
        switch: bool = True,
        force: bool = False,
        afresh: bool = False,
        economy: bool = False,
        budget_usd: float | None = None,
        keep_s: float | None = None,
    ) -> Reembedding:
        """Begin to build another generation of a collection, which takes over when it passes its check.

        What is left out stays as the collection has it. ``economy``: for half the price, within a day. It stops before
        it costs more than ``budget_usd``. Twice is harmless; ``wait_for_reembedding`` waits.
        """
        with worded(NewReembedding):
            asked = NewReembedding(
                model=model,
                dimensions=dimensions,
                chunking=chunking,
                quantization=quantization,
                switch=switch,
                force=force,
                afresh=afresh,
                economy=economy,
                budget_usd=budget_usd,
                keep_s=keep_s,
            )
        return self._transport.post(
            self._path("collections", collection, "reembedding"), Reembedding, body=asked.model_dump(exclude_none=True)
        )

    def reembedding(self, collection: str, *, wait_s: float = 0) -> Reembedding:
        """Return the re-embedding of a collection: as soon as it rests, at the latest after ``wait_s`` (at most 30)."""
        path = self._path("collections", collection, "reembedding")
        return self._transport.get(path, Reembedding, wait_s=min(wait_s, LONGEST_POLL_S))

    def wait_for_reembedding(
        self,
        collection: str,
        *,
        states: Collection[str] = RESTS,
        timeout_s: float | None = None,
        on_progress: Callable[[Reembedding], None] = lambda _: None,
        every_s: float = 2.0,
    ) -> Reembedding:
        """Wait until a re-embedding is in one of these states, or stands still.

        Raises:
            Busy: it goes on after ``timeout_s``.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left_s = every_s if deadline is None else min(every_s, deadline - time.monotonic())
            found = self.reembedding(collection, wait_s=max(0.0, left_s))
            on_progress(found)
            if found.state in states or found.paused_at is not None:
                return found
            if deadline is not None and time.monotonic() >= deadline:
                raise Busy(
                    f"the re-embedding of {collection!r} is {found.state} after {timeout_s:g} s", code="still_running"
                )

    def set_reembedding_budget(self, collection: str, budget_usd: float | None) -> Reembedding:
        """Let it cost so much in all, what it has cost included; None: whatever it costs.

        One that waits for money goes on at once when there is some.
        """
        with worded(ReembeddingChange):
            asked = ReembeddingChange(budget_usd=budget_usd)
        path = self._path("collections", collection, "reembedding")
        return self._transport.change("PATCH", path, Reembedding, body=asked.model_dump())

    def pause_reembedding(self, collection: str) -> Reembedding:
        """Let nothing more be copied until it is resumed."""
        return self._reembedding(collection, "pause")

    def resume_reembedding(self, collection: str) -> Reembedding:
        """Go on; what failed is tried again."""
        return self._reembedding(collection, "resume")

    def cancel_reembedding(self, collection: str) -> Reembedding:
        """End it before the switch; the collection stays as it is."""
        return self._reembedding(collection, "cancel")

    def check_reembedding(self, collection: str) -> Reembedding:
        """Ask both generations the same questions once more."""
        return self._reembedding(collection, "check")

    def switch_generations(self, collection: str, *, force: bool = False) -> Reembedding:
        """Let the new generation take over; ``force``: although the check refused it."""
        return self._reembedding(collection, "switch", body={"force": force})

    def return_to_former(self, collection: str) -> Reembedding:
        """Let the generation that served before take over again, with all that came since."""
        return self._reembedding(collection, "rollback")

    def let_former_go(self, collection: str) -> Reembedding:
        """Drop the generation that does not serve."""
        return self._reembedding(collection, "drop")

    def _reembedding(self, collection: str, what: str, *, body: dict[str, Any] | None = None) -> Reembedding:
        return self._transport.post(self._path("collections", collection, "reembedding", what), Reembedding, body=body)
