"""`penstock collections`: named sets of documents."""

from typing import TYPE_CHECKING, Annotated

import typer

from .connection import connect
from .exits import UsageError, need_consent
from .options import Json, Key, Tenant, Url, Yes
from .output import by_state, console, count, duration, plain, print_json, table, when

if TYPE_CHECKING:
    from penstock.client.wire import Collection

app = typer.Typer(name="collections", help="List, make, show and delete collections.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)]


@app.command("list")
def list_(url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """List the collections of a tenant."""
    with connect(url, key, tenant) as client:
        collections = client.collections()
    if as_json:
        print_json(collections)
        return
    rows = table("collection", "model", "chunks", "documents", "published", right=("chunks",))
    for one in collections:
        rows.add_row(one.name, plain(one.model), f"{one.chunks:,}", by_state(one.documents), when(one.published_at))
    console().print(rows if collections else f"tenant {tenant!r} has no collections yet")


@app.command("create")
def create(
    name: Name,
    model: Annotated[str | None, typer.Option("--model", help="Embedding model; default: embedding.model.")] = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions", min=1, help="Cut vectors to so many dimensions: of Matryoshka models, see penstock models."
        ),
    ] = None,
    chunking: Annotated[
        str | None,
        typer.Option("--chunking", help="auto, recursive or tokens; recursive:200:20 sets size and overlap."),
    ] = None,
    metric: Annotated[str | None, typer.Option("--metric", help="cosine, dot or l2.")] = None,
    quantization: Annotated[
        str | None,
        typer.Option("--quantization", help="none, or int8: large indexes take a third of the memory."),
    ] = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Make a collection. Its model, dimensions, chunking, metric and quantization are fixed from then on."""
    from .arguments import parse_chunking, parse_metric, parse_quantization

    cut, measure, codes = parse_chunking(chunking), parse_metric(metric), parse_quantization(quantization)
    with connect(url, key, tenant) as client:
        made = client.create_collection(
            name, model=model, dimensions=dimensions, chunking=cut, metric=measure, quantization=codes
        )
    print_json(made) if as_json else _show(made)


@app.command("show")
def show(name: Name, url: Url = None, key: Key = None, tenant: Tenant = "default", as_json: Json = False) -> None:
    """Show one collection."""
    with connect(url, key, tenant) as client:
        found = client.collection(name)
    print_json(found) if as_json else _show(found)


@app.command("keep")
def keep(
    name: Name,
    versions: Annotated[int | None, typer.Option("--versions", min=1, help="Newest versions to keep.")] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0, help="How long to keep others after they were followed.")
    ] = None,
    default: Annotated[bool, typer.Option("--default", help="Keep what the server keeps of all collections.")] = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Change how long past versions of a collection are kept. Tags keep theirs in any case."""
    given = {"keep_versions": versions, "keep_s": seconds}
    values = given if default else {word: value for word, value in given.items() if value is not None}
    if not values or (default and (versions is not None or seconds is not None)):
        raise UsageError("give --versions or --seconds, or --default alone")
    with connect(url, key, tenant) as client:
        changed = client.change_retention(name, **values)
    print_json(changed) if as_json else _show(changed)


@app.command("fork")
def fork(
    name: Name,
    copy: Annotated[str, typer.Argument(help="Name of the collection to make.", show_default=False)],
    version: Annotated[
        str, typer.Option("--version", help="Version to begin with: a number, a tag, or a date or time in ISO 8601.")
    ] = "current",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Make a collection that begins with a version of another one. No file is copied."""
    with connect(url, key, tenant) as client, console(stderr=True).status(f"forking {name!r} into {copy!r}"):
        made = client.fork(name, copy, snapshot=version)
    print_json(made) if as_json else _show(made)


@app.command("delete")
def delete(
    name: Name,
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Delete a collection with all its documents."""
    need_consent("delete the collection with all its documents", given=yes, as_json=as_json)
    with connect(url, key, tenant) as client:
        if not yes:
            documents = sum(client.collection(name).documents.values())
            typer.confirm(f"Delete collection {name!r} of tenant {tenant!r} with {documents:,} documents?", abort=True)
        client.delete_collection(name)
    print_json({"deleted": name}) if as_json else console().print(f"collection {name!r} is deleted")


def _show(one: "Collection") -> None:
    rows = table("", "")
    rows.show_header = False
    chunking = ", ".join(f"{name} {value}" for name, value in one.chunking.items() if value is not None)
    for label, value in (
        ("collection", one.name),
        ("made", when(one.created_at)),
        ("model", f"{plain(one.model)}, {one.dimensions} dimensions, {one.metric}"),
        ("quantization", one.quantization),
        ("chunking", plain(chunking)),
        ("documents", by_state(one.documents)),
        ("chunks", f"{one.chunks:,}"),
        ("version", f"{one.version}, published {when(one.published_at)}"),
        ("kept", _kept(one)),
    ):
        rows.add_row(f"[dim]{label}[/]", value)
    console().print(rows)


def _kept(one: "Collection") -> str:
    if one.keep_versions is None and one.keep_s is None:
        return "as long as of all collections"
    versions = "as many versions as of all" if one.keep_versions is None else count(one.keep_versions, "version")
    if one.keep_s == 0:
        return f"{versions}, no others"
    return f"{versions}, others for {'as long as of all' if one.keep_s is None else duration(one.keep_s)}"
