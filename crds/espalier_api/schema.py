"""The one place that knows the CRD dialect: pydantic types in, structural OpenAPI v3 and CEL rules out.

Pydantic writes JSON schema 2020; a CRD takes a subset of OpenAPI 3.0. What differs: no `$ref`, `nullable` instead of
`anyOf [.., null]`, `enum` instead of `const`, boolean `exclusiveMinimum`, no `additionalProperties: false` (the API
server prunes or refuses unknown keys by itself). Anything else that pydantic can write and a CRD cannot is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from espalier_api import GROUP, VERSION
from espalier_api.benchmarkcomparison import BenchmarkComparison
from espalier_api.benchmarkjob import BenchmarkJob
from espalier_api.common import KEEPS_UNKNOWN, SAYS, Column, Rule
from espalier_api.gradingjob import GradingJob
from espalier_api.modelserver import ModelServer

Kind = type[GradingJob] | type[ModelServer] | type[BenchmarkJob] | type[BenchmarkComparison]
KINDS: tuple[Kind, ...] = (GradingJob, BenchmarkJob, BenchmarkComparison, ModelServer)

MAX_CRD_BYTES = 60_000
"""`kubectl apply` keeps a copy of the object in an annotation of at most 256 kB, and people read these files."""

_COPIED = (
    "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "minProperties", "maxProperties", "description", "default", "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys", "x-kubernetes-validations", KEEPS_UNKNOWN,
)  # fmt: skip
_DROPPED = {"title", "additionalProperties", "properties", "required", "items", SAYS}
_TRANSLATED = {"anyOf", "allOf", "const", "exclusiveMinimum", "exclusiveMaximum", "$ref", "$defs"}
_FORMATS = {"integer": "int64", "number": "double"}


class DialectError(Exception):
    """A type uses something that a structural schema cannot say."""


class _WithRules(GenerateJsonSchema):
    """Pydantic's generator, with each class's CEL rules at the place where the class is used."""

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        made = super().model_schema(schema)
        rules: tuple[Rule, ...] = getattr(schema["cls"], "rules", ())
        if rules:
            made["x-kubernetes-validations"] = [rule.model_dump() for rule in rules]
        return made


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of one kind."""
    version: dict[str, Any] = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": object_schema(kind)},
        "subresources": _subresources(kind),
        "selectableFields": [{"jsonPath": path} for path in kind.selectable],
        "additionalPrinterColumns": [_column(column) for column in kind.columns],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.kind,
                "listKind": f"{kind.kind}List",
                "plural": kind.plural,
                "singular": kind.kind.lower(),
                "shortNames": [kind.short],
                "categories": ["espalier"],
            },
            "versions": [version],
        },
    }


def object_schema(kind: Kind) -> dict[str, Any]:
    """The schema of a whole object; metadata is Kubernetes' own."""
    fields = kind.model_fields
    spec, status = (_annotation(fields[name].annotation) for name in ("spec", "status"))
    return {
        "type": "object",
        "description": _first_line(kind.__doc__ or ""),
        "required": ["spec"],
        "x-kubernetes-validations": [rule.model_dump() for rule in kind.rules],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural(spec),
            "status": structural(status),
        },
    }


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of one pydantic class, everything inline."""
    written = model.model_json_schema(by_alias=True, schema_generator=_WithRules)
    return _convert(written, written.get("$defs", {}), model.__name__)


def _convert(node: Mapping[str, Any], defs: Mapping[str, Any], where: str) -> dict[str, Any]:
    node = _inline(node, defs)
    if "anyOf" in node:
        return _convert_optional(node, defs, where)
    _refuse_unknown(node, where)
    made = {key: node[key] for key in _COPIED if key in node}
    _translate_scalars(node, made)
    if "description" in made:
        made["description"] = _first_line(made["description"])
    if made.get("type") == "object":
        _convert_object(node, made, defs, where)
    elif made.get("type") == "array":
        items = _convert(_items(node, where), defs, f"{where}[]")
        made["items"] = items if made.get("x-kubernetes-list-type") == "map" else _without_transitions(items)
    elif "type" not in made:
        raise DialectError(f"{where}: a structural schema needs one type; use a concrete class, not Any or a union")
    return made


def _inline(node: Mapping[str, Any], defs: Mapping[str, Any]) -> Mapping[str, Any]:
    """`$ref` replaced by what it names; the field's own description and default win."""
    if "$ref" not in node:
        return node
    target = defs[node["$ref"].rsplit("/", 1)[-1]]
    return {**_inline(target, defs), **{key: value for key, value in node.items() if key != "$ref"}}


def _convert_optional(node: Mapping[str, Any], defs: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`X | None` becomes X with `nullable`; any other union has no structural form."""
    choices = [choice for choice in node["anyOf"] if choice.get("type") != "null"]
    if len(choices) != 1 or len(choices) == len(node["anyOf"]):
        raise DialectError(f"{where}: a union has no structural form; write one optional field per case")
    own = {key: value for key, value in node.items() if key not in ("anyOf", "title")}
    made = _convert({**_inline(choices[0], defs), **own}, defs, where)
    if made.get("default", ...) is None:
        del made["default"]
    return {**made, "nullable": True}


def _translate_scalars(node: Mapping[str, Any], made: dict[str, Any]) -> None:
    if "const" in node:
        made["enum"] = [node["const"]]
        made.setdefault("type", "string")
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in node:
            made[bound.lower()] = node[f"exclusive{bound}"]
            made[f"exclusive{bound}"] = True
    if made.get("type") in _FORMATS:
        made.setdefault("format", _FORMATS[made["type"]])
    if SAYS in node:
        # CEL runs only where the schema itself is satisfied, so the sentence must replace the bare pattern.
        pattern = made.pop("pattern")
        made["x-kubernetes-validations"] = [{"rule": f"self.matches(r'{pattern}')", "message": node[SAYS]}]


def _convert_object(node: Mapping[str, Any], made: dict[str, Any], defs: Mapping[str, Any], where: str) -> None:
    if node.get(KEEPS_UNKNOWN):
        return
    values = node.get("additionalProperties")
    if isinstance(values, Mapping):
        made["additionalProperties"] = _convert(values, defs, f"{where}{{}}")
        return
    if "properties" not in node:
        raise DialectError(f"{where}: an object without declared fields; give the map a value type")
    if node.get("required"):
        made["required"] = list(node["required"])
    made["properties"] = {
        name: _convert(child, defs, f"{where}.{name}") for name, child in sorted(node["properties"].items())
    }
    if "default" in made and made["default"] == _own_defaults(made["properties"]):
        made["default"] = {}  # the API server fills in the fields' own defaults


def _without_transitions(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a plain list's items, of which the API server knows no old self: the list must not change."""
    made = dict(schema)
    rules = made.pop("x-kubernetes-validations", ())
    if kept := [rule for rule in rules if "oldSelf" not in rule["rule"]]:
        made["x-kubernetes-validations"] = kept
    if "properties" in made:
        made["properties"] = {name: _without_transitions(child) for name, child in made["properties"].items()}
    for below in ("items", "additionalProperties"):
        if below in made:
            made[below] = _without_transitions(made[below])
    return made


def _own_defaults(properties: Mapping[str, Any]) -> dict[str, Any]:
    """What an empty object of these fields becomes once defaulted (nulls as pydantic writes them)."""
    return {name: _default(child) for name, child in properties.items()}


def _default(child: Mapping[str, Any]) -> Any:
    value = child.get("default")
    return _own_defaults(child["properties"]) if value == {} and "properties" in child else value


def _items(node: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    if "prefixItems" in node or not isinstance(node.get("items"), Mapping):
        raise DialectError(f"{where}: lists need one item type; a tuple of types has no structural form")
    items: Mapping[str, Any] = node["items"]
    return items


def _refuse_unknown(node: Mapping[str, Any], where: str) -> None:
    unknown = set(node) - set(_COPIED) - _DROPPED - _TRANSLATED
    if unknown:
        raise DialectError(f"{where}: {', '.join(sorted(unknown))} has no structural form")


def _subresources(kind: Kind) -> dict[str, Any]:
    made: dict[str, Any] = {"status": {}}
    if kind.scale is not None:
        spec, status, selector = kind.scale
        made["scale"] = {"specReplicasPath": spec, "statusReplicasPath": status, "labelSelectorPath": selector}
    return made


def _column(column: Column) -> dict[str, Any]:
    made: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    return {**made, "priority": column.priority} if column.priority else made


def _annotation(annotation: Any) -> type[BaseModel]:
    assert isinstance(annotation, type), f"{annotation} is no class"
    assert issubclass(annotation, BaseModel), f"{annotation} is no pydantic model"
    return annotation


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
