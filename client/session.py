"""One tenant of one server: its connections, and the paths of what belongs to it."""

from types import TracebackType
from typing import Self
from urllib.parse import quote

import httpx

from .errors import Invalid
from .transport import Transport


class Session:
    """What every group of methods of `Penstock` works with."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        tenant: str = "default",
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.tenant = tenant
        self._transport = Transport(base_url, api_key=api_key, timeout_s=timeout_s, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    def _of(self, tenant: str) -> str:
        """Return the path of a tenant by name."""
        if tenant in ("", ".", "..") or "/" in tenant:
            raise _no_name("tenant", tenant)
        return f"/v1/tenants/{quote(tenant, safe='')}"

    def _path(self, *parts: str) -> str:
        for kind, part in zip(("tenants", self.tenant, *parts), (self.tenant, *parts), strict=False):
            if part in ("", ".", "..") or "/" in part:  # quoting does not keep these in their place
                raise _no_name(kind.removesuffix("s"), part)
        return "/".join(["/v1/tenants", quote(self.tenant, safe=""), *(quote(part, safe=":") for part in parts)])


def _no_name(kind: str, part: str) -> Invalid:
    """Return what to raise for what can name no ``kind``, in the server's words where it would have any."""
    if kind == "snapshot":
        told = "write a number, a tag, current, or a time such as 2024-05-31T12:00:00Z"
        return Invalid(f"{part!r} names no version: {told}", code="invalid_query", param=kind)
    if kind == "tag":
        return Invalid(f"{part!r} is no tag: use a letter, then a-z, 0-9, '-' and '_'", code="invalid_name", param=kind)
    if kind in ("tenant", "collection"):
        allowed = "use 1 to 64 of a-z, 0-9, '-' and '_', starting and ending with a letter or digit"
        return Invalid(f"{kind} name {part!r} is not allowed: {allowed}", code="invalid_name", param=kind)
    return Invalid(f"{part!r} is no id of a {kind}: ids have a-z, 0-9 and '_'", code="invalid_id", param=kind)
