"""Built-in times against numbers, ISO times and whole days: a plain reading of what docs/filters.md says."""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.pipeline.errors import InvalidFilter
from penstock.pipeline.filters import OPERATORS, parse_filter
from penstock.storage.segments.fields import And, Compare, build_index, evaluate
from penstock.storage.segments.records import DocumentRecord

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "filters.md"
DAY = datetime(2024, 5, 31, tzinfo=UTC)
# Around the edges of a day, where rules about days differ from rules about instants.
INSTANTS = [
    DAY + timedelta(seconds=s) for s in (-86_401, -86_400, -1, -0.5, 0, 0.5, 1, 43_200, 86_399, 86_399.5, 86_400)
]
ZONES = [UTC, timezone(timedelta(hours=2)), timezone(-timedelta(hours=11, minutes=30))]
times = st.sampled_from([None, *(moment.timestamp() for moment in INSTANTS)])
days = st.sampled_from(["2024-05-30", "2024-05-31", "2024-06-01"])
written = st.one_of(
    days,
    st.builds(lambda at, zone: at.astimezone(zone).isoformat(), st.sampled_from(INSTANTS), st.sampled_from(ZONES)),
    st.builds(lambda moment: moment.timestamp(), st.sampled_from(INSTANTS)),
)  # fmt: skip
operators = st.sampled_from(["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin", "contains"])


def indexed(*event_times: float | None):
    return build_index([DocumentRecord("d", "v", 1, "s", None, {}, at, None, 0.0, "text/plain") for at in event_times])


def period(value: str | float) -> tuple[datetime, datetime]:
    """The first instant that ``value`` means, and the first after it."""
    if isinstance(value, str) and len(value) == 10:
        start = datetime.fromisoformat(value).replace(tzinfo=UTC)
        return start, start + timedelta(days=1)
    instant = datetime.fromisoformat(value) if isinstance(value, str) else datetime.fromtimestamp(value, UTC)
    return instant, instant + timedelta(microseconds=1)


def oracle(op: str, at: float | None, values: list[str | float]) -> bool:
    if at is None:
        return op in {"ne", "nin"}
    moment = datetime.fromtimestamp(at, UTC)
    periods = [period(value) for value in values]
    within = any(start <= moment < end for start, end in periods)
    if op in {"eq", "in", "contains"}:
        return within
    if op in {"ne", "nin"}:
        return not within
    (start, end), *_ = periods
    return {"gt": moment >= end, "gte": moment >= start, "lt": moment < start, "lte": moment < end}[op]


@settings(max_examples=400, deadline=None)
@given(op=operators, value=written, more=st.lists(written, max_size=2), held=st.lists(times, min_size=1, max_size=8))
def test_times_compare_as_the_instants_and_days_that_they_are(op, value, more, held):
    several = [value, *more] if op in {"in", "nin"} else [value]
    condition = {"type": op, "key": "$event_time", "value": several if op in {"in", "nin"} else value}
    accepted = evaluate(indexed(*held), parse_filter(condition)).tolist()
    assert accepted == [oracle(op, at, several) for at in held]


def test_a_month_from_its_first_to_its_last_day_holds_all_of_its_last_day():
    last = datetime(2024, 5, 31, 23, 59, 59, 500_000, tzinfo=UTC).timestamp()
    index = indexed(last, last + 1)
    month = parse_filter("$event_time>=2024-05-01,$event_time<=2024-05-31")
    assert evaluate(index, month).tolist() == [True, False]


def test_a_time_is_read_on_the_command_line_as_in_json():
    assert parse_filter("$event_time=2024-05-31") == parse_filter(
        {"type": "eq", "key": "$event_time", "value": "2024-05-31"}
    )
    assert parse_filter("$ingested_at=5") == Compare("eq", "$ingested_at", 5)
    assert parse_filter("$expires_at>=2024-05-31T14:00+02") == Compare("gte", "$expires_at", 1717156800.0)
    assert isinstance(parse_filter("$event_time=2024-05-31"), And)


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "2024", "2024-05", "20240531", "2024-W22-5", "2024-13-01", "2024-02-30", "2024-05-31T25:00Z",
     "2024-05-31+02:00", "31.05.2024", "2024-05-31T12:00:00 Europe/Paris", "٢٠٢٤-05-31", True],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_the_field(value):
    for condition in ({"type": "eq", "value": value}, {"type": "in", "value": [value]}):
        with pytest.raises(InvalidFilter, match=r"filter on '\$event_time': .*(is a time|range|month|day|hour)"):
            parse_filter({**condition, "key": "$event_time"})


def test_the_ends_of_time_are_times():
    for value in ("0001-01-01", "9999-12-31", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        parse_filter({"type": "lte", "key": "$event_time", "value": value})


def test_a_date_in_metadata_is_text_and_a_field_of_that_name_is_no_built_in_time():
    assert parse_filter("event_time>=2024-05-31") == Compare("gte", "event_time", "2024-05-31")


def test_every_filter_in_the_documentation_is_one_and_every_operator_has_its_row():
    text = DOCUMENT.read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    cells = [
        cell for row in re.findall(r"^\|.*\|$", text, re.MULTILINE) for cell in re.findall(r"`(\{.*?\})` \|$", row)
    ]
    assert len(blocks) == 2
    assert {json.loads(cell)["type"] for cell in cells} <= set(OPERATORS)
    for example in (*blocks, *cells):
        parse_filter(json.loads(example))
    rows = text.partition("## Operators")[2].partition("## Kinds")[0]
    told = {word for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for word in re.findall(r"`(\w+)`", row)}
    assert told == set(OPERATORS)
