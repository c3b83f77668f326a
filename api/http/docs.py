"""The description of the interface: OpenAPI with examples, and a page made from it that fetches nothing."""

import html
import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from penstock.client import wire

from .examples import EXAMPLES
from .gate import OPEN_PATHS

REFERENCE = "#/components/schemas/{model}"
UNSEEN: tuple[type[BaseModel], ...] = (  # by the framework: routes read their bodies themselves
    wire.NewTenant,
    wire.JobChange,
    wire.TenantChange,
    wire.NewCollection,
    wire.CollectionChange,
    wire.Fork,
    wire.NewReembedding,
    wire.ReembeddingChange,
    wire.Switch,
    wire.Submission,
    wire.UploadForm,
    wire.KnownQuery,
    wire.Deletion,
    wire.DocumentUpdate,
    wire.ChunkDeletion,
    wire.DeadSelection,
    wire.NewJudgements,
    wire.ShadowQuery,
    wire.NewSchedule,
    wire.SearchQuery,
    wire.WebhookReceiver,
    wire.WebhookDefault,
    wire.ErrorAnswer,
)
DESCRIPTION = """\
Submit documents, follow their jobs, search. Everything below a tenant belongs to it alone: what is another tenant's
does not exist. Times are seconds since 1970. Types are strict: an integer is written without a point and without
quotes (`"k": 3`, not `3.0`). A field or query parameter that is unknown or given twice is refused (a repeated field in
bodies up to 8 MiB; in larger ones the last one counts).
Every error is `{"error": {"code", "message", "param"}}`."""
TAGS = [
    {"name": "search", "description": "Find passages."},
    {"name": "documents", "description": "Submit, change and delete documents, and see what became of them."},
    {"name": "jobs", "description": "Follow or cancel submissions."},
    {"name": "webhooks", "description": "What receivers were told when jobs ended, and what that is signed with."},
    {
        "name": "schedules",
        "description": "What runs again and again: of a collection below its tenant, of everything under "
        "`/v1/schedules`.",
    },
    {"name": "collections", "description": "Named sets of documents with one embedding model."},
    {
        "name": "snapshots",
        "description": "The versions of a collection. One is named by its number, a tag, `current`, or an ISO 8601 "
        "date or time at which it was current.",
    },
    {"name": "tenants", "description": "Units of isolation."},
    {"name": "usage", "description": "What calls of providers cost."},
    {"name": "operations", "description": "For those who run the server."},
]


def json_body(kind: type[BaseModel]) -> dict[str, Any]:
    """Return what a route says about its JSON body, which it reads itself."""
    schema = {"$ref": REFERENCE.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def submission_body() -> dict[str, Any]:
    """Return the two bodies a submission may have."""
    described = json_body(wire.Submission)
    entries = {"$ref": REFERENCE.format(model=wire.UploadForm.__name__) + "/properties/documents"}
    described["requestBody"]["content"]["multipart/form-data"] = {
        "schema": {
            "type": "object",
            "required": ["files"],
            "properties": {
                "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                "documents": entries | {"description": "JSON: one entry per file, in the same order"},
                "job_id": {"type": "string"},
                "webhook_url": {"type": "string", "description": "told, signed, when the job ends"},
                "priority": {"$ref": REFERENCE.format(model=wire.UploadForm.__name__) + "/properties/priority"},
            },
        }
    }
    return described


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description of ``app``, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _described(app)
    return app.openapi_schema


def _described(app: FastAPI) -> dict[str, Any]:
    api = get_openapi(title=app.title, version=app.version, description=DESCRIPTION, routes=app.routes, tags=TAGS)
    parts = api.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    _, unseen = models_json_schema([(kind, "validation") for kind in UNSEEN], ref_template=REFERENCE)
    schemas.update(unseen["$defs"])
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape, which no answer here has
        schemas.pop(name, None)
    for kind, example in EXAMPLES.items():
        schemas[kind.__name__]["examples"] = [example]
    parts["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer", "description": "`penstock up` prints it"}}
    api["security"] = [{"key": []}]
    for path, method, operation in _operations(api):
        if path in OPEN_PATHS:
            operation["security"] = []
        operation["responses"].pop("422", None)
        operation["responses"]["default"] = _error_answer()
        operation.setdefault("operationId", f"{method}_{path}")
    return api


def _error_answer() -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model=wire.ErrorAnswer.__name__)}
    return {"description": "What is wrong, with which field", "content": {"application/json": {"schema": schema}}}


def _operations(api: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}}
h2{{font-size:1rem;font-family:ui-monospace,monospace;margin:2rem 0 .2rem}}b{{color:#06c}}
pre{{background:#f5f5f5;padding:.6rem;overflow:auto;font-size:13px}}summary{{cursor:pointer}}</style>
<h1>{title}</h1><p>{description}</p><p>As data: <a href="/openapi.json">/openapi.json</a></p>
{operations}</html>"""


def page(api: dict[str, Any]) -> str:
    """Return the description as one HTML page without scripts, fonts or anything else from elsewhere."""
    operations = "\n".join(_section(api, *operation) for operation in _operations(api))
    title = html.escape(f"{api['info']['title']} {api['info']['version']}")
    return PAGE.format(title=title, description=html.escape(api["info"]["description"]), operations=operations)


def _section(api: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    shown = [f"<h2><b>{method.upper()}</b> {html.escape(path)}</h2><p>{html.escape(operation.get('summary', ''))}. "]
    shown.append(f"{html.escape(operation.get('description', ''))}</p>")
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    answers = [answer for status, answer in operation["responses"].items() if status.startswith("2")]
    shown += [_example(api, "Request", body)] if body else []
    shown += [_example(api, "Answer", each["content"].get("application/json")) for each in answers if "content" in each]
    return "".join(shown)


def _example(api: dict[str, Any], label: str, content: dict[str, Any] | None) -> str:
    name = ((content or {}).get("schema", {}).get("$ref") or "").rpartition("/")[2]
    examples = api["components"]["schemas"].get(name, {}).get("examples", [])
    shown = "".join(html.escape(json.dumps(each, indent=2)) for each in examples)
    return f"<details><summary>{label}: {html.escape(name)}</summary><pre>{shown}</pre></details>" if name else ""
