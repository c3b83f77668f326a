"""Routes: the versions of a collection."""

from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from penstock.client import wire
from penstock.pipeline.references import parse_reference
from penstock.storage import ledger
from penstock.storage.catalog.collections import CollectionInfo
from penstock.storage.catalog.engine import Catalog
from penstock.storage.catalog.manifests import ManifestInfo, is_kept, list_manifests
from penstock.storage.catalog.references import find_version
from penstock.storage.catalog.tags import checked_tag, put_tag, remove_tag
from penstock.storage.errors import AlreadyExists, Damaged, InvalidName, NotFound, NotKept
from penstock.storage.ids import BatchId
from penstock.storage.publishing.forks import fork_collection
from penstock.storage.segments.differences import Comparison
from penstock.storage.segments.manifests import Manifest, read_manifest

from ...errors import Refused, refusal
from .. import answers
from ..bodies import read_json
from ..components import Components, components_of
from ..docs import json_body
from ..lookups import find_collection
from ..polling import polled
from ..queries import DiffQuery, RollbackQuery, SnapshotsQuery, StrictRoute, TagQuery

router = APIRouter(tags=["snapshots"], route_class=StrictRoute)
SNAPSHOTS = "/v1/tenants/{tenant}/collections/{collection}/snapshots"
SNAPSHOT = SNAPSHOTS + "/{snapshot}"
ROLLBACK = "/v1/tenants/{tenant}/collections/{collection}/rollbacks/{rollback}"


@router.get(SNAPSHOTS, response_model=wire.SnapshotList, summary="List the versions that are kept, newest first")
async def list_page(
    request: Request, tenant: str, collection: str, query: Annotated[SnapshotsQuery, Query()]
) -> Response:
    return answers.answer(await components_of(request).call(_page, tenant, collection, query))


@router.get(SNAPSHOT, response_model=wire.SnapshotDetails, summary="Show a version and its segments")
async def show(request: Request, tenant: str, collection: str, snapshot: str) -> Response:
    return await _in_thread(request, _details, tenant, collection, snapshot)


@router.get(
    SNAPSHOT + "/diff",
    response_model=wire.SnapshotDiff,
    summary="Compare two versions document by document",
    description="From the version in the path to the one in `to`. Only what differs is read. Documents come in pages "
    "of no meaning, each by id: `last_id` as `after` gives the next one.",
)
async def diff(
    request: Request, tenant: str, collection: str, snapshot: str, query: Annotated[DiffQuery, Query()]
) -> Response:
    return await _in_thread(request, _diff, tenant, collection, snapshot, query)


@router.put(
    SNAPSHOT + "/tags/{tag}",
    response_model=wire.SnapshotDetails,
    summary="Give a version a name, which keeps it",
    description="409 when another version has the name, unless it is to `move`. Twice is harmless.",
)
async def tag(
    request: Request, tenant: str, collection: str, snapshot: str, tag: str, query: Annotated[TagQuery, Query()]
) -> Response:
    return await _in_thread(request, _tagged, tenant, collection, snapshot, tag, query.move)


@router.delete(
    SNAPSHOT + "/tags/{tag}",
    status_code=204,
    summary="Remove a name from a version",
    description="Whether the version stays is then up to retention.",
)
async def untag(request: Request, tenant: str, collection: str, snapshot: str, tag: str) -> Response:
    components = components_of(request)
    await anyio.to_thread.run_sync(_untag, components, tenant, collection, snapshot, tag, limiter=components.reads)
    return Response(status_code=204)


@router.post(
    SNAPSHOT + "/rollback",
    response_model=wire.Rollback,
    status_code=202,
    summary="Serve an old version again",
    description="As a new version, with documents to match; what is on its way is indexed on top of it. `Location` is "
    "the rollback, which the writer carries out. Twice is harmless; 409 while another one waits.",
)
async def roll_back(request: Request, tenant: str, collection: str, snapshot: str) -> Response:
    components = components_of(request)
    asked = await anyio.to_thread.run_sync(
        _roll_back, components, tenant, collection, snapshot, limiter=components.reads
    )
    location = f"/v1/tenants/{tenant}/collections/{collection}/rollbacks/{asked['id']}"
    return answers.answer(asked, status=202, headers={"Location": location})


@router.get(ROLLBACK, response_model=wire.Rollback, summary="Show a rollback, or wait for its end")
async def show_rollback(
    request: Request, tenant: str, collection: str, rollback: str, query: Annotated[RollbackQuery, Query()]
) -> Response:
    components = components_of(request)

    async def look() -> dict[str, Any]:
        return await components.call(_rollback, tenant, collection, rollback)

    def waits(found: dict[str, Any]) -> bool:
        return bool(found["state"] == "waiting")

    return answers.answer(await polled(request, look, tenant=tenant, waits=waits, wait_s=query.wait))


@router.post(
    SNAPSHOT + "/fork",
    response_model=wire.Collection,
    status_code=201,
    summary="Make a collection that begins with a version",
    description="Of the same tenant. No file is copied, and what happens to one collection later never happens to the "
    "other. 409 when there is a collection of that name.",
    openapi_extra=json_body(wire.Fork),
)
async def fork(request: Request, tenant: str, collection: str, snapshot: str) -> Response:
    components, asked = components_of(request), await read_json(request, wire.Fork)
    made = await anyio.to_thread.run_sync(
        _fork, components, tenant, collection, snapshot, asked.name, limiter=components.submissions
    )
    components.lookups.forget(tenant, asked.name)
    return answers.answer(made, status=201)


async def _in_thread(request: Request, work: Any, *args: Any) -> Response:
    components = components_of(request)
    answer = await anyio.to_thread.run_sync(work, components, *args, limiter=components.reads)
    return answers.answer(answer)


def _page(catalog: Catalog, tenant: str, name: str, query: SnapshotsQuery) -> dict[str, Any]:
    generation = find_collection(catalog, tenant, name).generation
    with catalog.read() as connection:
        found = list_manifests(connection, generation.id, before=query.before, limit=query.limit + 1)
    shown = [answers.snapshot(info) for info in found[: query.limit]]
    last = shown[-1]["version"] if shown else None
    return {"data": shown, "has_more": len(found) > query.limit, "last_version": last}


def _details(components: Components, tenant: str, name: str, snapshot: str) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    info = _found(components, collection, snapshot)
    return answers.snapshot(info) | {"parts": [answers.snapshot_part(entry) for entry in _read(components, info)]}


def _diff(components: Components, tenant: str, name: str, snapshot: str, query: DiffQuery) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    before = _known(components, collection, snapshot, param="snapshot")
    after = _known(components, collection, query.to, param="to")
    try:
        comparison = Comparison(components.objects, _manifest(components, before), _manifest(components, after))
        names = (before.name if before else None, after.name if after else None)
        counts = components.comparisons.counts(names, comparison)
        found = comparison.page(after=query.after, limit=query.limit + 1)
    except Damaged:
        _require_kept(components, snapshot=before, to=after)
        raise
    shown = found[: query.limit]
    return {
        "before": before.version if before else 0,
        "after": after.version if after else 0,
        **vars(counts),
        "documents": sorted((answers.change(one) for one in shown), key=lambda one: str(one["id"])),
        "has_more": len(found) > query.limit,
        "last_id": shown[-1].document.document_id if shown else None,
    }


def _tagged(components: Components, tenant: str, name: str, snapshot: str, tag: str, move: bool) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    _check_tag(tag)
    info = _found(components, collection, snapshot)
    try:
        with components.catalog.write("tag") as connection:
            put_tag(connection, info.generation_id, name=tag, version=info.version, move=move, now=components.clock())
    except AlreadyExists as error:
        raise refusal(error, param="tag") or error from error
    return _details(components, tenant, name, str(info.version))


def _untag(components: Components, tenant: str, name: str, snapshot: str, tag: str) -> None:
    collection = find_collection(components.catalog, tenant, name)
    _check_tag(tag)
    info = _found(components, collection, snapshot)
    if tag not in info.tags:
        raise NotFound(f"version {info.version} has no tag {tag!r}")
    with components.catalog.write("untag") as connection:
        remove_tag(connection, info.generation_id, name=tag)


def _check_tag(tag: str) -> None:
    try:
        checked_tag(tag)
    except InvalidName as error:
        raise refusal(error, param="tag") or error from error


def _roll_back(components: Components, tenant: str, name: str, snapshot: str) -> dict[str, Any]:
    collection = find_collection(components.catalog, tenant, name)
    info = _found(components, collection, snapshot)
    asked = ledger.open_rollback(
        components.catalog, generation_id=info.generation_id, version=info.version, now=components.clock()
    )
    components.notices.work_ready()
    return answers.rollback(asked)


def _rollback(catalog: Catalog, tenant: str, name: str, rollback: str) -> dict[str, Any]:
    collection = find_collection(catalog, tenant, name)
    generation = collection.generation
    info = ledger.get_rollback(
        catalog, tenant=generation.tenant_id, generation_id=generation.id, rollback_id=BatchId(rollback)
    )
    return answers.rollback(info)


def _fork(components: Components, tenant: str, name: str, snapshot: str, copy: str) -> dict[str, Any]:
    parent = find_collection(components.catalog, tenant, name)
    try:
        made = fork_collection(
            components.catalog,
            components.objects,
            parent=parent,
            reference=parse_reference(snapshot, now=components.clock()),
            name=copy,
            clock=components.clock,
            max_collections=components.settings.limits.max_collections_per_tenant,
        )
    except (AlreadyExists, InvalidName) as error:
        raise refusal(error, param="name") or error from error
    return answers.collection(made)


def _found(components: Components, collection: CollectionInfo, snapshot: str) -> ManifestInfo:
    """Return the version; unlike `_known`, there must be one."""
    info = _known(components, collection, snapshot, param="snapshot")
    if info is None:
        told = f"had no version yet at {snapshot}: list the versions that there are"
        if not collection.generation.version:
            told = "has no version yet: submit documents to publish the first"
        elif snapshot.isdigit():
            told = f"has no version {snapshot}, which stands for the time before its first: list the versions there are"
        raise Refused(
            f"collection {collection.name!r} {told}",
            status=404,
            code="version_not_kept",
            param="snapshot",
        )
    return info


def _known(components: Components, collection: CollectionInfo, snapshot: str, *, param: str) -> ManifestInfo | None:
    """Return the version that is named, None for the time before the first."""
    wanted = parse_reference(snapshot, now=components.clock(), param=param)
    try:
        return find_version(components.catalog, collection.generation.id, wanted)
    except NotKept as error:
        raise refusal(error, param=param) or error from error


def _read(components: Components, info: ManifestInfo) -> list[Any]:
    try:
        return read_manifest(components.objects, info.name).segments
    except Damaged:
        _require_kept(components, snapshot=info)
        raise


def _manifest(components: Components, info: ManifestInfo | None) -> Manifest | None:
    return None if info is None else read_manifest(components.objects, info.name)


def _require_kept(components: Components, **versions: ManifestInfo | None) -> None:
    """Refuse when a version went since it was looked up, and with it perhaps its files."""
    for param, info in versions.items():
        if info is not None and not is_kept(components.catalog, info.generation_id, info.version):
            told = f"version {info.version} is not kept any more: list the versions, and choose another"
            raise Refused(told, status=404, code="version_not_kept", param=param)
