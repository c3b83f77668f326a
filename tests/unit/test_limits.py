"""The limits that docs/limits.md tells are the limits of the code, at every door."""

from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from penstock.api.cli.application import app
from penstock.api.http import bodies, queries
from penstock.client import events, transport, wire
from penstock.pipeline import filters
from penstock.pipeline.embedding import model_card
from penstock.pipeline.errors import ProviderMisconfigured
from penstock.settings.model import Embedding, Search, Settings, Snapshots
from penstock.storage import ids, limits, metadata

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "limits.md"
SETTINGS = Settings()


def longest(model: type, field: str) -> int:
    """Return the most characters or elements that a field of the wire takes."""
    return next(rule.max_length for rule in model.model_fields[field].metadata if hasattr(rule, "max_length"))


def most(model: type, field: str) -> int:
    """Return the highest number that a field takes."""
    return next(int(rule.le) for rule in model.model_fields[field].metadata if hasattr(rule, "le"))


OF_THE_CODE = {
    "dimensions of a vector, least": limits.MIN_DIMENSIONS,
    "dimensions of a vector, most": limits.MAX_DIMENSIONS,
    "hits of one search (`k`), most": SETTINGS.search.max_k,
    "hits of one search (`k`), most that can be set": limits.MAX_K,
    "width of a graph search (`ef`), most": limits.MAX_EF,
    "width of a graph search (`ef`) when none is asked for": SETTINGS.search.ef,
    "query text, characters": limits.MAX_QUERY_CHARACTERS,
    "filter, conditions and values": filters.MAX_CONDITIONS,
    "filter, levels of nesting": filters.MAX_DEPTH,
    "metadata of one document, bytes of JSON": metadata.MAX_BYTES,
    "metadata of one document, levels of nesting": metadata.MAX_DEPTH,
    "collections of one tenant": SETTINGS.limits.max_collections_per_tenant,
    "schedules of one tenant, and of the installation itself": limits.MAX_SCHEDULES_PER_TENANT,
    "name of a tenant or a collection, characters": next(n for n in range(1, 1000) if not ids.NAME.fullmatch("a" * n))
    - 1,
    "versions kept by retention (`keep_versions`), most that can be set": limits.MAX_KEPT_VERSIONS,
    "source of a document, bytes": limits.MAX_SOURCE_BYTES,
    "filename of a document, characters": limits.MAX_FILENAME_CHARACTERS,
    "title of a document, characters": limits.MAX_TITLE_CHARACTERS,
    "media type of a document, characters": limits.MAX_MEDIA_TYPE_CHARACTERS,
    "times of a document, latest in seconds since 1970 (the year 9999)": int(limits.LATEST_S),
    "one document, bytes": SETTINGS.limits.max_document_bytes,
    "one document, pages of a PDF": SETTINGS.limits.max_pages,
    "one document, characters of its text": SETTINGS.limits.max_characters,
    "one document, seconds of parsing": int(SETTINGS.limits.parse_timeout_s),
    "one submission, bytes": SETTINGS.limits.max_submission_bytes,
    "one submission, documents": SETTINGS.limits.max_documents_per_submission,
    "an idempotency key, seconds that it is remembered": int(SETTINGS.limits.idempotency_keep_s),
    "documents of one tenant that wait to be cut": SETTINGS.limits.max_backlog_documents,
    "bytes of one tenant that wait to be cut": SETTINGS.limits.max_backlog_bytes,
    "documents or chunks that one deletion names (a filter may accept more)": limits.MAX_REMOVED_AT_ONCE,
    "one question which sources are known, sources": longest(wire.KnownQuery, "documents"),
    "name of a tag, characters": longest(wire.SearchQuery, "tag"),
    "an idempotency key, characters": limits.MAX_IDEMPOTENCY_KEY_CHARACTERS,
    "one answer that is waited for (`wait` of all but streams), seconds": most(queries.SubmitQuery, "wait"),
    "one stream of events that is to end by itself (`wait`), seconds": most(queries.EventsQuery, "wait"),
    "judgements of a collection": limits.MAX_JUDGEMENTS,
    "question of a judgement, characters": limits.MAX_JUDGED_QUERY_CHARACTERS,
    "recorded searches of a collection": SETTINGS.shadow.keep,
    "requests that wait in one process (`wait`, `min_token`)": SETTINGS.api.max_waits,
    "requests that wait in one process, of one tenant": SETTINGS.api.max_waits_per_tenant,
    "streams of events of one process": SETTINGS.api.max_streams,
    "streams of events of one process, of one tenant": SETTINGS.api.max_streams_per_tenant,
    "one request that is no submission, bytes": bodies.SMALL_BODY_BYTES,
    "a JSON body in which a field that is given twice is refused, bytes (in a larger one the last counts)": (
        bodies.REPEATS_LOOKED_FOR_BYTES
    ),
}


def told() -> dict[str, tuple[int, str]]:
    """Return the first table of the document: the value and the setting of each limit."""
    lines = DOCUMENT.read_text().partition("|---")[2].splitlines()[1:]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[: lines.index("")]]
    return {name: (int(value.replace(",", "")), setting.strip("`")) for name, value, setting in cells}


def test_the_table_of_limits_is_that_of_the_code():
    assert {name: value for name, (value, _) in told().items()} == OF_THE_CODE


def test_every_setting_beside_a_limit_has_that_default_and_every_limit_of_the_settings_is_told():
    named = {setting: value for value, setting in told().values() if setting}
    values = {f"{table}.{key}": value for table, keys in SETTINGS.model_dump().items() if isinstance(keys, dict)
              for key, value in keys.items()}  # fmt: skip
    assert named == {setting: values[setting] for setting in named}
    assert {setting for setting in values if setting.startswith("limits.")} <= named.keys()


def test_the_wire_refuses_what_storage_would_refuse():
    """The client cannot import the limits: it stands alone."""
    assert wire.CollectionChange(keep_versions=limits.MAX_KEPT_VERSIONS)
    for refused in (wire.CollectionChange, Snapshots):
        with pytest.raises(ValidationError, match="less than or equal to 1000000"):
            refused(keep_versions=limits.MAX_KEPT_VERSIONS + 1)
    assert longest(wire.DocumentFields, "source") == wire.LONGEST_SOURCE == limits.MAX_SOURCE_BYTES
    assert longest(wire.DocumentFields, "filename") == limits.MAX_FILENAME_CHARACTERS
    assert longest(wire.DocumentFields, "title") == limits.MAX_TITLE_CHARACTERS
    assert longest(wire.DocumentFields, "media_type") == limits.MAX_MEDIA_TYPE_CHARACTERS
    assert longest(wire.DocumentUpdate, "title") == limits.MAX_TITLE_CHARACTERS
    assert longest(wire.ChunkDeletion, "chunk_ids") == wire.MAX_REMOVED_AT_ONCE == limits.MAX_REMOVED_AT_ONCE
    assert longest(wire.Deletion, "ids") == longest(wire.Deletion, "sources") == limits.MAX_REMOVED_AT_ONCE
    assert longest(wire.SearchQuery, "query") == limits.MAX_QUERY_CHARACTERS
    assert most(queries.EventsQuery, "wait") == events.LONGEST_STREAM_S
    longest_key = "k" * limits.MAX_IDEMPOTENCY_KEY_CHARACTERS
    assert transport.IDEMPOTENCY_KEY.fullmatch(longest_key)
    assert not transport.IDEMPOTENCY_KEY.fullmatch(longest_key + "k")
    assert longest(wire.NewJudgement, "query") == limits.MAX_JUDGED_QUERY_CHARACTERS
    assert longest(wire.NewJudgements, "judgements") == wire.MAX_JUDGEMENTS == limits.MAX_JUDGEMENTS
    assert next(rule.le for rule in wire.SearchQuery.model_fields["ef"].metadata if hasattr(rule, "le")) == (
        limits.MAX_EF
    )


@pytest.mark.parametrize("dimensions", [16, 255, 4_097])
def test_dimensions_outside_of_the_limits_are_refused_wherever_they_are_written(dimensions):
    with pytest.raises(ProviderMisconfigured, match="256 to 4096"):
        model_card(f"hash-{dimensions}")
    with pytest.raises(ProviderMisconfigured, match="256 to 4096") as refused:
        model_card("openai/bge-m3", dimensions=dimensions)
    assert refused.value.setting == "embedding.openai_dimensions"
    with pytest.raises(ProviderMisconfigured, match="256 to 4096"):
        model_card("openai/text-embedding-3-large", dimensions=dimensions)
    with pytest.raises(ValidationError, match=r"256|4096"):
        Embedding(openai_dimensions=dimensions)


@pytest.mark.parametrize("dimensions", [256, 4_096])
def test_dimensions_at_the_limits_are_taken(dimensions):
    assert model_card(f"hash-{dimensions}").dimensions == dimensions
    assert model_card("openai/bge-m3", dimensions=dimensions).dimensions == dimensions
    assert Embedding(openai_dimensions=dimensions).openai_dimensions == dimensions


def test_more_hits_than_the_limit_can_neither_be_set_nor_asked_for():
    with pytest.raises(ValidationError, match="1000"):
        Search(max_k=limits.MAX_K + 1)
    asked = CliRunner().invoke(app, ["search", "-k", str(limits.MAX_K + 1), "anything"])
    assert asked.exit_code == 2
    assert "1000" in asked.output
