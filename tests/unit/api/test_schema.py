"""The CRD dialect: what pydantic says comes out as a structural schema, or is refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field

from espalier_api.common import KEEPS_UNKNOWN, SAYS, Rule
from espalier_api.meta import Model
from espalier_api.schema import KINDS, MAX_CRD_BYTES, DialectError, crd, structural


class Inner(Model):
    """One thing.

    More words that only readers of the code need.
    """

    size: int = 3
    rules: ClassVar[tuple[Rule, ...]] = (Rule(rule="self.size > 0", message="make size positive"),)


class Outer(Model):
    """Everything that the dialect can say."""

    choice: Literal["a", "b"] = "a"
    fixed: Literal["only"] = "only"
    share: float = Field(default=0.5, gt=0, lt=1)
    when: datetime | None = None
    inner: Inner = Inner()
    other: Inner = Inner(size=4)
    maybe: Inner | None = Field(default=None, description="Perhaps.")
    labels: Annotated[dict[str, Annotated[str, Field(max_length=9)]], Field(max_length=5)] | None = None
    parts: tuple[Inner, ...] = Field(max_length=7)
    code: str = Field(default="x", pattern=r"^x+$", max_length=9, json_schema_extra={SAYS: "write x"})


def property_of(name: str) -> dict[str, Any]:
    found = structural(Outer)["properties"][name]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("choice", {"type": "string", "enum": ["a", "b"], "default": "a"}),
        ("fixed", {"type": "string", "enum": ["only"], "default": "only"}),
        (
            "share",
            {
                "type": "number", "format": "double", "default": 0.5,
                "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True,
            },
        ),
        ("when", {"type": "string", "format": "date-time", "nullable": True}),
        (
            "labels",
            {
                "type": "object", "maxProperties": 5, "nullable": True,
                "additionalProperties": {"type": "string", "maxLength": 9},
            },
        ),
        (
            "code",
            {
                "type": "string", "default": "x", "maxLength": 9,
                "x-kubernetes-validations": [{"rule": "self.matches(r'^x+$')", "message": "write x"}],
            },
        ),
    ],
)  # fmt: skip
def test_a_field_is_written_in_the_dialect(name: str, expected: dict[str, Any]) -> None:
    assert property_of(name) == expected


def test_a_nested_class_is_inline_with_its_rules_and_its_first_line() -> None:
    inner = property_of("inner")
    assert inner["description"] == "One thing."
    assert inner["properties"] == {"size": {"type": "integer", "format": "int64", "default": 3}}
    assert inner["x-kubernetes-validations"] == [{"rule": "self.size > 0", "message": "make size positive"}]


def test_rules_stand_wherever_the_class_is_used() -> None:
    assert property_of("parts")["items"]["x-kubernetes-validations"]
    assert property_of("maybe")["x-kubernetes-validations"]


def test_an_object_of_defaults_only_defaults_to_an_empty_object() -> None:
    assert property_of("inner")["default"] == {}
    assert property_of("other")["default"] == {"size": 4}


def test_an_optional_class_is_nullable_and_keeps_the_fields_own_words() -> None:
    maybe = property_of("maybe")
    assert maybe["nullable"] is True
    assert maybe["description"] == "Perhaps."
    assert "default" not in maybe


def test_required_fields_are_named_as_on_the_wire() -> None:
    assert structural(Outer)["required"] == ["parts"]


class Server(Model):
    """Something that may not change."""

    size: int = 1
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(rule="self.size == oldSelf.size", message="keep size"), Rule(rule="self.size > 0", message="grow"),
    )


class Fleet(Model):
    """Servers in a list, by name, and alone; and what only somebody else can read."""

    alone: Server = Server()
    listed: tuple[Server, ...] = Field(max_length=3)
    named: tuple[Server, ...] = Field(
        max_length=3, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["size"]}
    )
    free: dict[str, Any] = Field(json_schema_extra={KEEPS_UNKNOWN: True})


@pytest.mark.parametrize(("field", "kept"), [("alone", 2), ("listed", 1), ("named", 2)])
def test_a_plain_lists_items_have_no_old_self(field: str, kept: int) -> None:
    """The API server refuses such a rule where it cannot tell which item was which."""
    found = structural(Fleet)["properties"][field]
    assert len(found.get("items", found)["x-kubernetes-validations"]) == kept


def test_an_object_that_only_an_executor_understands_is_kept_as_it_is() -> None:
    assert structural(Fleet)["properties"]["free"] == {"type": "object", KEEPS_UNKNOWN: True}


class TupleOfTypes(Model):
    """Refused."""

    pair: tuple[int, str]


class UnionOfTypes(Model):
    """Refused."""

    either: int | str


class AnyValue(Model):
    """Refused."""

    value: Any


class OpenMap(Model):
    """Refused."""

    values: dict[str, Any]


@pytest.mark.parametrize("model", [TupleOfTypes, UnionOfTypes, AnyValue, OpenMap], ids=lambda m: m.__name__)
def test_what_a_structural_schema_cannot_say_is_refused_with_its_place(model: type[Model]) -> None:
    with pytest.raises(DialectError, match=rf"{model.__name__}\.\w+"):
        structural(model)


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_conditions_are_a_list_map_by_type(kind: Any) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    conditions = schema["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-type"] == "map"
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_every_string_and_list_of_a_spec_is_bounded(kind: Any) -> None:
    """The API server estimates the cost of CEL rules from these bounds and refuses rules over unbounded data."""
    spec = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert list(unbounded(spec, "spec")) == []


def unbounded(schema: dict[str, Any], path: str) -> Any:
    kind = schema["type"]
    if kind == "string" and not {"maxLength", "enum", "format"} & set(schema):
        yield path
    if kind == "array":
        if "maxItems" not in schema:
            yield path
        yield from unbounded(schema["items"], f"{path}[]")
    if kind == "object" and "additionalProperties" in schema:
        if "maxProperties" not in schema:
            yield path
        yield from unbounded(schema["additionalProperties"], f"{path}{{}}")
    for name, child in schema.get("properties", {}).items():
        yield from unbounded(child, f"{path}.{name}")


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_columns_scale_and_field_selectors_name_fields_that_exist(kind: Any) -> None:
    version = crd(kind)["spec"]["versions"][0]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version["selectableFields"]]
    paths += list(version["subresources"].get("scale", {}).values())
    for path in paths:
        schema = version["schema"]["openAPIV3Schema"]
        parts = path.removeprefix(".").split(".")
        if parts[0] == "metadata":
            continue
        for part in parts:
            assert part in schema["properties"], f"{path}: no {part}"
            schema = schema["properties"][part]


def test_generated_files_are_small_enough_to_apply() -> None:
    from espalier_api.__main__ import generated_files

    sizes = {name: len(text.encode()) for name, text in generated_files().items() if name.endswith(".yaml")}
    assert max(sizes.values()) < MAX_CRD_BYTES, sizes
