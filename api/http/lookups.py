"""Finds the tenant and the collection a path names, and says precisely which of them is missing.

Searches may use an answer that is a moment old; everything else looks anew.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from penstock.storage.catalog.collections import CollectionInfo, get_collection
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.generations import GenerationInfo, up_to_date_generations
from penstock.storage.catalog.tenants import require_tenant
from penstock.storage.errors import InvalidName, NotFound
from penstock.storage.ids import CollectionId, TenantId, checked_name

from ..errors import Refused

REMEMBERED = 10_000  # collections; more are looked up each time


def find_tenant(catalog: Catalog, tenant: str) -> TenantId:
    """Return the tenant. Raises Refused: 400 when nothing can be named so, 404 when nothing is."""
    tenant_id = TenantId(_named("tenant", tenant))
    try:
        with catalog.read() as connection:
            require_tenant(connection, tenant_id)
    except NotFound as error:
        raise Refused(
            f"there is no tenant {tenant!r}: POST /v1/tenants makes one", status=404, code="unknown_tenant"
        ) from error
    return tenant_id


def find_collection(catalog: Catalog, tenant: str, name: str, *, counted: bool = False) -> CollectionInfo:
    """Return the collection, with its documents counted when asked for. Raises Refused like `find_tenant`."""
    tenant_id, name = TenantId(_named("tenant", tenant)), _named("collection", name)
    try:
        return get_collection(catalog, tenant=tenant_id, name=name, counted=counted)
    except NotFound as error:
        find_tenant(catalog, tenant)
        raise Refused(
            f"tenant {tenant!r} has no collection {name!r}: POST /v1/tenants/{tenant}/collections makes one",
            status=404,
            code="unknown_collection",
        ) from error


def _named(kind: str, name: str) -> str:
    try:
        return checked_name(kind, name)
    except InvalidName as error:
        raise Refused(str(error), code="invalid_name", param=kind) from error


@dataclass(frozen=True)
class _Remembered:
    info: CollectionInfo
    until: float


class Lookups:
    """Remembers where collections are for ``remembered_s``, so that a search costs no SQL. Safe between threads."""

    def __init__(self, catalog: Catalog, *, remembered_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._catalog = catalog
        self._remembered_s = remembered_s
        self._clock = clock
        self._found: dict[tuple[str, str], _Remembered] = {}
        self._generations: dict[CollectionId, tuple[list[GenerationInfo], float]] = {}

    def collection(self, tenant: str, name: str) -> CollectionInfo:
        """Return the collection as it was at most ``remembered_s`` ago. Raises Refused like `find_collection`."""
        if (remembered := self.remembered(tenant, name)) is not None:
            return remembered
        now = self._clock()
        info = find_collection(self._catalog, tenant, name)
        if len(self._found) >= REMEMBERED and (tenant, name) not in self._found:
            self._found.clear()
        self._found[tenant, name] = _Remembered(info, now + self._remembered_s)
        return info

    def remembered(self, tenant: str, name: str) -> CollectionInfo | None:
        """Return what `collection` would without asking the catalog; None when it would ask."""
        found = self._found.get((tenant, name))
        return found.info if found is not None and self._clock() < found.until else None

    def generations(self, info: CollectionInfo) -> list[GenerationInfo]:
        """Return the generations of a collection as they were at most ``remembered_s`` ago."""
        now = self._clock()
        found, until = self._generations.get(info.id, ([], 0.0))
        if now < until:
            return found
        found = up_to_date_generations(self._catalog, info.id, tenant=info.tenant_id, now=time.time())
        if len(self._generations) >= REMEMBERED:
            self._generations.clear()
        self._generations[info.id] = (found, now + self._remembered_s)
        return found

    def forget(self, tenant: str, name: str) -> None:
        """Look anew next time: the collection was made or deleted here."""
        self._found.pop((tenant, name), None)
