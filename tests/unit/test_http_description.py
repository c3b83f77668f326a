"""The OpenAPI description says what the server does: every body has an example, and every example is one."""

import re

import pytest

from penstock.api.http.app import make_app
from penstock.api.http.docs import describe, page
from penstock.api.http.examples import EXAMPLES
from penstock.api.http.gate import OPEN_PATHS
from penstock.settings.model import Settings


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    return describe(make_app(Settings(data_dir=tmp_path_factory.mktemp("unused"))))


def operations(api):
    return [(path, method, one) for path, methods in api["paths"].items() for method, one in methods.items()]


def references(part):
    if isinstance(part, dict):
        found = [part["$ref"]] if "$ref" in part else []
        return found + [one for inner in part.values() for one in references(inner)]
    return [one for inner in part for one in references(inner)] if isinstance(part, list) else []


@pytest.mark.parametrize("kind", EXAMPLES, ids=lambda kind: kind.__name__)
def test_every_example_is_one(kind):
    assert kind.model_validate(EXAMPLES[kind]).model_dump(mode="json", exclude_unset=True) == EXAMPLES[kind]


def test_every_json_body_has_an_example(api):
    for path, method, operation in operations(api):
        contents = [operation.get("requestBody", {}), *operation["responses"].values()]
        schemas = [one["content"]["application/json"]["schema"] for one in contents if one.get("content")]
        for schema in schemas:
            name = schema["$ref"].rpartition("/")[2]
            assert api["components"]["schemas"][name]["examples"], (path, method, name)


def test_every_reference_leads_somewhere(api):
    for reference in references(api):
        found = api
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]


def test_every_route_says_what_it_is_for_and_how_it_fails(api):
    for path, method, operation in operations(api):
        assert operation["summary"], path
        assert operation["tags"], path
        assert list(operation["responses"])[-1] == "default", (path, method)
        assert "422" not in operation["responses"]


def test_only_what_needs_no_key_is_described_so(api):
    assert api["security"] == [{"key": []}]
    assert {path for path, _, one in operations(api) if one.get("security") == []} <= OPEN_PATHS


def test_operation_ids_are_unique(api):
    ids = [operation["operationId"] for _, _, operation in operations(api)]
    assert len(set(ids)) == len(ids)


def test_the_page_escapes_what_it_shows_and_loads_nothing(api):
    shown = page(api)
    assert "<script" not in shown
    assert not re.search(r"""(?:src|href)=["'](?!/)""", shown)
    assert "&quot;query&quot;" in shown
