"""Routes: what calls of providers cost."""

from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.moments import DAY_S, instant
from penstock.storage.catalog.engine import Catalog
from penstock.storage.costs import GROUPS, Amounts, Group, read_costs

from ...errors import Refused
from .. import answers
from ..components import components_of
from ..lookups import find_tenant
from ..queries import StrictRoute, UsageQuery

router = APIRouter(tags=["usage"], route_class=StrictRoute)
LENGTH_OF_DATE = len("2026-11-30")


@router.get(
    "/v1/tenants/{tenant}/usage",
    response_model=wire.Usage,
    summary="What calls of providers cost a tenant",
    description="By the hour of the call, in UTC. The last few seconds of searches may be missing.",
)
async def of_tenant(request: Request, tenant: str, query: Annotated[UsageQuery, Query()]) -> Response:
    return answers.answer(await components_of(request).call(_usage, query, tenant=tenant))


@router.get(
    "/v1/usage",
    response_model=wire.Usage,
    summary="What calls of providers cost all tenants",
    description="As for one tenant.",
)
async def of_all(request: Request, query: Annotated[UsageQuery, Query()]) -> Response:
    return answers.answer(await components_of(request).call(_usage, query, tenant=None))


def _usage(catalog: Catalog, query: UsageQuery, *, tenant: str | None) -> dict[str, Any]:
    by = _groups(query.by)
    since, until = _moment(query.since, "since"), _moment(query.until, "until", whole_day=True)
    if since is not None and until is not None and since >= until:
        raise Refused(f"until: {query.until} is not after since, {query.since}: change one of them", param="until")
    where: dict[str, Any] = {
        "tenant": None if tenant is None else find_tenant(catalog, tenant),
        "since": since,
        "until": until,
    }
    found = read_costs(catalog, by=by, limit=query.limit + 1, **where)
    total = read_costs(catalog, by=(), limit=1, **where)
    return {
        "by": list(by),
        "data": [{**row.named, **_told(row.amounts)} for row in found[: query.limit]],
        "total": _told(total[0].amounts if total else Amounts()),
        "has_more": len(found) > query.limit,
    }


def _told(amounts: Amounts) -> dict[str, Any]:
    return {
        "calls": amounts.calls,
        "failed_calls": amounts.failed_calls,
        "tokens": amounts.tokens,
        "cost_usd": None if amounts.unpriced_tokens else amounts.cost_usd,
        "priced_usd": amounts.cost_usd,
        "unpriced_tokens": amounts.unpriced_tokens,
        "cache_hits": amounts.cache_hits,
        "saved_tokens": amounts.saved_tokens,
        "saved_usd": None if amounts.unpriced_saved_tokens else amounts.saved_usd,
    }


def _groups(text: str) -> Sequence[Group]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    unknown = [word for word in words if word not in GROUPS]
    if unknown or not words or len({*words}) != len(words):
        told = f"{unknown[0]!r} is none of them" if unknown else "name each once"
        raise Refused(f"by={text}: sums are by {', '.join(GROUPS)}; {told}", param="by")
    return [group for group in GROUPS if group in words]


def _moment(text: str | None, name: str, *, whole_day: bool = False) -> float | None:
    if text is None:
        return None
    with suppress(ValueError):
        if isfinite(seconds := float(text)):
            return seconds
    try:
        return instant(text) + (DAY_S if whole_day and len(text) == LENGTH_OF_DATE else 0.0)
    except ValueError as error:
        raise Refused(f"{name}: {error}", param=name) from error
