"""What the client can do with tenants, and pauses: a part of `Penstock`."""

from .session import Session
from .transport import worded
from .wire import CacheUse, NewTenant, Pause, Tenant, TenantChange, TenantList


class Tenants(Session):
    """The methods of `Penstock` about tenants. They name one; the others speak of the tenant of this object."""

    def tenants(self) -> list[Tenant]:
        return self._transport.get("/v1/tenants", TenantList).data

    def create_tenant(self, name: str) -> Tenant:
        """Make a tenant, or return the one of that name."""
        with worded(NewTenant):
            new = NewTenant(name=name)
        return self._transport.post("/v1/tenants", Tenant, body=new.model_dump())

    def get_tenant(self, name: str) -> Tenant:
        return self._transport.get(self._of(name), Tenant)

    def change_tenant(self, name: str, **values: float | None) -> Tenant:
        """Set ``weight``, ``max_backlog_documents``, ``max_backlog_bytes``, ``monthly_budget_usd`` or
        ``record_queries``.

        None brings the default back.
        """
        with worded(TenantChange):
            asked = TenantChange.model_validate(values)
        body = asked.model_dump(include=asked.model_fields_set)
        return self._transport.change("PATCH", self._of(name), Tenant, body=body)

    def cache_use(self, name: str) -> CacheUse:
        """Return what the cache of vectors did for one tenant."""
        return self._transport.get(f"{self._of(name)}/cache", CacheUse)

    def pause(self) -> Pause:
        """Pause everything: nothing more is begun. Submissions are accepted and searches answered all the same."""
        return self._transport.change("POST", "/v1/pause", Pause)

    def resume(self) -> Pause:
        """End the pause of everything. Tenants that were paused on their own stay so."""
        return self._transport.change("POST", "/v1/resume", Pause)

    def pause_tenant(self, name: str) -> Tenant:
        """Pause one tenant."""
        return self._transport.change("POST", f"{self._of(name)}/pause", Tenant)

    def resume_tenant(self, name: str) -> Tenant:
        """End the pause of one tenant."""
        return self._transport.change("POST", f"{self._of(name)}/resume", Tenant)
