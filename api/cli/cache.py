"""`penstock cache`: what the cache of vectors found, and what that saved."""

from typing import TYPE_CHECKING

from .connection import connect
from .options import Json, Key, Tenant, Url
from .output import console, count, money, print_json, size, table, when

if TYPE_CHECKING:
    from penstock.client.wire import CacheUse


def cache(url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """Show what the cache of vectors did for a tenant. `penstock status` shows it for all of them."""
    with connect(url, key, tenant) as client:
        found = client.cache_use(tenant)
    if as_json:
        print_json({"tenant": tenant, **found.model_dump(mode="json")})
        return
    rows = table("cache of tenant", tenant)
    rows.add_row("counted since", when(found.since))
    rows.add_row("texts found", f"{found.hits:,} of {found.hits + found.misses:,}{_rate(found)}")
    rows.add_row("damaged entries", f"{found.damaged:,}")
    rows.add_row("saved", f"{count(found.saved_tokens, 'token')}, {money(found.saved_usd)}")
    rows.add_row("kept", f"{count(found.vectors, 'vector')}, {size(found.size_bytes)}")
    rows.add_row("forgotten for room", f"{found.evicted:,}")
    console().print(rows)


def told(use: "CacheUse", *, limit_bytes: int) -> str:
    """Return one line about all tenants."""
    kept = f"{count(use.vectors, 'vector')}, {size(use.size_bytes)} of {size(limit_bytes)}"
    found = f"{use.hits:,} of {use.hits + use.misses:,} texts found{_rate(use)}"
    return f"cache: {kept}; {found}, {money(use.saved_usd)} saved"


def _rate(use: "CacheUse") -> str:
    return "" if use.hit_rate is None else f" ({use.hit_rate:.1%})"
