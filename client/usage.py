"""What the client can do with costs: a part of `Penstock`."""

from collections.abc import Sequence

from .session import Session
from .wire import Usage, UsageGroup


class UsageReports(Session):
    """The methods of `Penstock` about costs."""

    def usage(
        self,
        *,
        by: UsageGroup | Sequence[UsageGroup] = "day",
        since: str | float | None = None,
        until: str | float | None = None,
        limit: int = 1000,
        all_tenants: bool = False,
    ) -> Usage:
        """Return what calls of providers cost the tenant of this object, or all tenants.

        ``since`` and ``until``: dates, of which the latter is included, times in ISO 8601, or seconds since 1970; costs
        are kept by the hour.
        """
        path = "/v1/usage" if all_tenants else self._path("usage")
        groups = by if isinstance(by, str) else ",".join(by)
        asked = {"by": groups, "since": since, "until": until, "limit": limit}
        return self._transport.get(path, Usage, params=asked)
