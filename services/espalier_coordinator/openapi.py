"""The OpenAPI document of the routes, and a page of it that needs nothing from elsewhere. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from html import escape
from importlib.metadata import version
from operator import attrgetter
from typing import Any

from espalier_coordinator.calls.fleet import FleetCalls
from espalier_coordinator.calls.jobs import JobCalls
from espalier_coordinator.calls.named import LetterCalls, ReservationCalls, TemplateCalls
from espalier_coordinator.calls.workers import WorkerCalls
from espalier_coordinator.routes import ROUTES, SERVICE, Route
from espalier_rpc.jsonform import messages_below, schema

_CLASSES = {
    "jobs": JobCalls, "workers": WorkerCalls, "fleet": FleetCalls, "letters": LetterCalls, "templates": TemplateCalls,
    "reservations": ReservationCalls,
}
_PROBLEM = {
    "type": "object", "required": ["type", "title", "status", "detail", "reason"],
    "properties": {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"},
                   "detail": {"type": "string", "description": "one sentence that says what to change"},
                   "reason": {"type": "string"}},
}
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c}"
    "code{background:#f2f2f0;padding:.1em .3em}summary{cursor:pointer;padding:.3rem 0}"
    "td,th{text-align:left;padding:.15rem .8rem .15rem 0;vertical-align:top}"
    "b{display:inline-block;min-width:4.5rem}h2{margin-top:2rem}"
)


@cache
def document() -> dict[str, Any]:
    """OpenAPI 3.1."""
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Espalier coordinator", "version": version("espalier"),
                 "description": "Durable tasks. Every call is also an rpc of espalier.v1.Coordinator."},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": {**_schemas(), "Problem": _PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def summary_of(route: Route) -> str:
    """The first line of what the call says about itself."""
    group, _, name = route.call.partition(".")
    return (attrgetter(name)(_CLASSES[group]).__doc__ or "").strip().splitlines()[0]


def _operation(route: Route) -> dict[str, Any]:
    kind = "application/x-ndjson" if route.is_stream else "application/json"
    operation: dict[str, Any] = {
        "operationId": route.rpc, "summary": summary_of(route), "tags": [route.call.partition(".")[0]],
        "parameters": _parameters(route),
        "responses": {
            "200": {"description": "done", "content": {kind: {"schema": _ref(route.answer)}}},
            "default": {"description": "refused", "content": {"application/problem+json": {"schema": _ref("Problem")}}},
        },
    }
    if route.has_body:
        body = _ref(route.message.DESCRIPTOR.name)
        operation["requestBody"] = {"content": {"application/json": {"schema": body}}}
    return operation


def _parameters(route: Route) -> list[dict[str, Any]]:
    properties = schema(route.message.DESCRIPTOR)["properties"]
    in_path = re.findall(r"\{(\w+)\}", route.path)
    found = [{"name": n, "in": "path", "required": True, "schema": properties[n]} for n in in_path]
    if not route.has_body:
        found += [{"name": n, "in": "query", "schema": s} for n, s in properties.items() if n not in in_path]
    return found


def _schemas() -> dict[str, Any]:
    found = {}
    for route in ROUTES:
        method = SERVICE.methods_by_name[route.rpc]
        for root in (method.input_type, method.output_type):
            found.update(messages_below(root))
    return {name: schema(found[name]) for name in sorted(found)}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


# ---------------------------------------------------------------- the page


@cache
def page() -> str:
    """The document for people: plain HTML, no script, nothing loaded."""
    told = document()
    groups: dict[str, list[str]] = {}
    for path, operations in told["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_section(method.upper(), path, operation))
    body = "".join(f"<h2>{escape(name)}</h2>{''.join(sections)}" for name, sections in groups.items())
    models = "".join(_model(name, shape) for name, shape in told["components"]["schemas"].items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Espalier coordinator</title>'
        f"<style>{_STYLE}</style><h1>Espalier coordinator {escape(told['info']['version'])}</h1>"
        "<p>Send <code>Authorization: Bearer TOKEN</code> with every request but <code>/health</code>. "
        'The same as data: <a href="openapi.json">openapi.json</a>.</p>'
        f"{body}<h2>messages</h2>{models}</html>"
    )


def _section(method: str, path: str, operation: Mapping[str, Any]) -> str:
    rows = [(p["name"], p["in"], _type_of(p["schema"])) for p in operation["parameters"]]
    if "requestBody" in operation:
        rows.append(("", "body", _type_of(operation["requestBody"]["content"]["application/json"]["schema"])))
    (answer,) = operation["responses"]["200"]["content"].values()
    rows.append(("", "answer", _type_of(answer["schema"])))
    return (
        f"<details><summary><b>{method}</b><code>{escape(path)}</code> {escape(operation['summary'])}</summary>"
        f"<p>rpc <code>{operation['operationId']}</code></p>{_table(rows)}</details>"
    )


def _model(name: str, shape: Mapping[str, Any]) -> str:
    rows = [(field, "", _type_of(part)) for field, part in shape["properties"].items()]
    return f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>{_table(rows)}</details>'


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    cells = "".join(
        f"<tr><td>{f'<code>{escape(name)}</code>' if name else ''}<td>{escape(place)}<td>{kind}"
        for name, place, kind in rows
    )
    return f"<table>{cells}</table>"


def _type_of(part: Mapping[str, Any]) -> str:
    """HTML of a schema in a few words."""
    if "$ref" in part:
        name = escape(part["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if part.get("type") == "array":
        return f"list of {_type_of(part['items'])}"
    if part.get("type") == "object":
        return f"text to {_type_of(part['additionalProperties'])}"
    return escape(str(part.get("type") or part.get("description") or "any"))
