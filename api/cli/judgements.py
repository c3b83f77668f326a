"""`penstock judgements`: how well documents answer questions, which a re-embedding is measured by."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .connection import connect
from .exits import UsageError, need_consent
from .options import Collection, Json, Key, Limit, Tenant, Url, Yes
from .output import console, count, plain, print_json, print_page, table

app = typer.Typer(name="judgements", help="Say how well documents answer questions.", no_args_is_help=True)

TOLD = 10
EXAMPLE = '{"query": "when are pears pruned?", "source": "pear.txt", "grade": 3}'


@app.command("load")
def load(
    file: Annotated[
        str,
        typer.Argument(
            help="Lines of JSON with query, grade (0 to 10) and source or document_id; - reads standard input.",
            show_default=False,
        ),
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Forget the judgements that are there.")] = False,
    collection: Collection = "default",
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Load judgements of a collection, all or none. The last one of a question and a document counts."""
    lines, given = read_judgements(file)
    with connect(url, key, tenant) as client:
        loaded = client.load_judgements(collection, given, replace=replace)
    unknown = [lines[place] for place in loaded.unknown]
    if as_json:
        print_json({**loaded.model_dump(mode="json", exclude={"unknown"}), "loaded": len(given), "unknown": unknown})
        return
    out = console()
    there = f"{collection!r} has {count(loaded.judgements, 'judgement')} of {count(loaded.queries, 'question')}"
    out.print(f"{count(len(given), 'judgement')} loaded; {there}")
    if unknown:
        some = ", ".join(map(str, unknown[:TOLD])) + (", …" if loaded.unknown_count > TOLD else "")
        out.print(
            f"[yellow]{loaded.unknown_count:,} of them name a document that {collection!r} does not have[/] "
            f"(lines {some}): no search can find it"
        )


@app.command("list")
def list_(
    collection: Collection = "default",
    limit: Limit = 100,
    after: Annotated[str | None, typer.Option("--after", help="Id of the last one of the page before.")] = None,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """List the judgements of a collection, in an order of no meaning."""
    with connect(url, key, tenant) as client:
        page = client.judgements(collection, after=after, limit=limit)
    if as_json:
        print_json(page)
        return
    rows = table("query", "document", "grade", right=("grade",))
    for one in page.data:
        rows.add_row(plain(one.query), plain(one.source or one.document_id), str(one.grade))
    print_page(rows, page, empty=f"{collection!r} has no judgements")


@app.command("clear")
def clear(
    collection: Annotated[str, typer.Argument(help="Name of the collection.", show_default=False)],
    yes: Yes = False,
    url: Url = None,
    key: Key = None,
    tenant: Tenant = "default",
    as_json: Json = False,
) -> None:
    """Forget the judgements of a collection."""
    need_consent("forget the judgements", given=yes, as_json=as_json)
    if not yes:
        typer.confirm(f"Forget the judgements of collection {collection!r} of tenant {tenant!r}?", abort=True)
    with connect(url, key, tenant) as client:
        gone = client.clear_judgements(collection)
    print_json(gone) if as_json else console().print(f"{count(gone.forgotten, 'judgement')} forgotten")


def read_judgements(file: str) -> tuple[list[int], list[dict[str, Any]]]:
    """Return the judgements of a file, checked, and the line of each, from 1. Empty lines are passed over.

    Raises:
        UsageError: the file cannot be read, has no judgement or too many, or one is wrong; the line is named.
    """
    from penstock.client.wire import MAX_JUDGEMENTS

    where = "standard input" if file == "-" else file
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    found = [(number, _checked(line, at=f"{where}, line {number}")) for number, line in _filled(text)]
    if not found:
        raise UsageError(f"{where} has no judgements: write one a line, such as {EXAMPLE}")
    if len(found) > MAX_JUDGEMENTS:
        raise UsageError(f"{where} has {len(found):,} judgements: a collection may have {MAX_JUDGEMENTS:,}")
    return [number for number, _ in found], [judgement for _, judgement in found]


def _filled(text: str) -> list[tuple[int, str]]:
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _checked(line: str, *, at: str) -> dict[str, Any]:
    from pydantic import ValidationError

    from penstock.client.wire import NewJudgement
    from penstock.client.wire.problems import first_problem

    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{at}: this is not JSON ({error}); write for example {EXAMPLE}") from error
    try:
        return NewJudgement.model_validate(given).model_dump(exclude_none=True)
    except ValidationError as error:
        raise UsageError(f"{at}: {first_problem(error, NewJudgement).message}") from error
