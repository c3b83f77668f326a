"""What the client can do before a re-embedding takes over: a part of `Penstock`."""

from typing import Any

from .session import Session
from .transport import worded
from .wire import ShadowQuery, ShadowReport

LONGEST_CHECK_S = 660.0


class Shadow(Session):
    """The method of `Penstock` about comparing generations."""

    def shadow_check(self, collection: str, **asked: Any) -> ShadowReport:
        """Ask two generations of a collection the same questions: see `wire.ShadowQuery`. Changes nothing."""
        with worded(ShadowQuery):
            query = ShadowQuery(**asked)
        body = query.model_dump(include=query.model_fields_set)
        path = self._path("collections", collection, "shadow")
        return self._transport.post(path, ShadowReport, body=body, wait_s=LONGEST_CHECK_S)
