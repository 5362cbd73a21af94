"""Messages as JSON and back, and their JSON Schema: what REST and `-o json` show.

Not protobuf's own JSON mapping: a field of bytes holds JSON in this protocol, so it appears as that JSON; 64-bit
numbers are numbers; names are those of the proto; what has its default value is shown all the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from espalier_kit.digest import canonical_json
from espalier_kit.errors import Permanent

M = TypeVar("M", bound=Message)

_FLOATS = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})
_TEXTS = frozenset({FieldDescriptor.TYPE_STRING})
_SMALL = frozenset({FieldDescriptor.TYPE_INT32})
_SPANS = {True: 2**31, False: 2**63}


# ---------------------------------------------------------------- out
def to_json(message: Message) -> dict[str, Any]:
    """The message as JSON: every field, but absent messages and absent optional fields."""
    shown = {}
    fields: Sequence[Any] = message.DESCRIPTOR.fields
    for field in fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        shown[field.name] = _shown(field, getattr(message, field.name))
    return shown


def _shown(field: FieldDescriptor, value: Any) -> Any:
    if is_map(field):
        part = _below(field).fields_by_name["value"]
        return {key: _single(part, value[key]) for key in sorted(value)}
    if field.is_repeated:
        return [_single(field, item) for item in value]
    return _single(field, value)


def _single(field: FieldDescriptor, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return to_json(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return embedded(value)
    return value


def embedded(data: bytes) -> Any:
    """The JSON in a field of bytes, UTF-8; None for none. What is no JSON, or nested too deeply, is shown as text."""
    try:
        return json.loads(data.decode()) if data else None
    except (ValueError, RecursionError):
        return data.decode(errors="replace")


# ---------------------------------------------------------------- in
def from_json(kind: type[M], data: Any) -> M:
    """A message from JSON. Raises `Permanent` with a sentence that names the field."""
    message = kind()
    _fill(message, data, kind.DESCRIPTOR.name)
    return message


def _fill(message: Message, data: Any, place: str) -> None:
    if not isinstance(data, Mapping):
        raise _wrong(place, "an object", data)
    fields: Mapping[str, Any] = message.DESCRIPTOR.fields_by_name
    for name, value in data.items():
        if name not in fields:
            raise Permanent(f"{place} has no field {name!r}: it has {', '.join(fields)}", reason="UnknownField")
        if value is None and fields[name].type != FieldDescriptor.TYPE_BYTES:
            continue
        _set(message, fields[name], value, f"{place}.{name}")


def _set(message: Message, field: FieldDescriptor, value: Any, place: str) -> None:
    if is_map(field):
        _set_map(getattr(message, field.name), field, value, place)
    elif field.is_repeated:
        _set_list(getattr(message, field.name), field, value, place)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill(target, value, place)
    else:
        setattr(message, field.name, _scalar(field, value, place))


def _set_map(target: Any, field: FieldDescriptor, value: Any, place: str) -> None:
    if not isinstance(value, Mapping):
        raise _wrong(place, "an object", value)
    part = _below(field).fields_by_name["value"]
    for key, item in value.items():
        target[str(key)] = _scalar(part, item, f"{place}.{key}")


def _set_list(target: Any, field: FieldDescriptor, value: Any, place: str) -> None:
    if not isinstance(value, list | tuple):
        raise _wrong(place, "a list", value)
    for number, item in enumerate(value):
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            _fill(target.add(), item, f"{place}[{number}]")
        else:
            target.append(_scalar(field, item, f"{place}[{number}]"))


def _scalar(field: FieldDescriptor, value: Any, place: str) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"" if value is None else canonical_json(value)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return value if isinstance(value, bool) else _refuse(place, "true or false", value)
    if field.type in _TEXTS:
        return value if isinstance(value, str) else _refuse(place, "text", value)
    if field.type in _FLOATS:
        return float(value) if is_number and math.isfinite(value) else _refuse(place, "a finite number", value)
    limit = _SPANS[field.type in _SMALL]
    if not is_number or not math.isfinite(value) or int(value) != value or not -limit <= value < limit:
        raise _wrong(place, "a whole number", value)
    return int(value)


def from_text(field: FieldDescriptor, text: str, place: str) -> Any:
    """A query parameter as the JSON that its field wants; bytes are given as JSON."""
    if field.type in _TEXTS:
        return text
    try:
        return json.loads(text)
    except ValueError as error:
        raise _wrong(place, "a number or true or false", text) from error


def _refuse(place: str, wanted: str, value: Any) -> Any:
    raise _wrong(place, wanted, value)


def _wrong(place: str, wanted: str, value: Any) -> Permanent:
    return Permanent(f"{place} must be {wanted}, not {json.dumps(value, default=str)[:80]}", reason="InvalidField")


# ---------------------------------------------------------------- schema
def schema(descriptor: Any) -> dict[str, Any]:
    """JSON Schema (as OpenAPI 3.1 has it) of a message; other messages by `$ref` below `#/components/schemas/`."""
    return {
        "type": "object", "additionalProperties": False,
        "properties": {field.name: _schema_of(field) for field in descriptor.fields},
    }


def messages_below(descriptor: Any) -> dict[str, Any]:
    """This message and every one that it contains, by name."""
    found: dict[str, Any] = {}
    waiting = [descriptor]
    while waiting:
        now = waiting.pop()
        if now.name in found or now.GetOptions().map_entry:
            waiting += [f.message_type for f in now.fields if f.message_type and now.GetOptions().map_entry]
            continue
        found[now.name] = now
        waiting += [f.message_type for f in now.fields if f.message_type]
    return found


def _below(field: FieldDescriptor) -> Descriptor:
    assert field.message_type is not None
    return field.message_type


def is_map(field: FieldDescriptor) -> bool:
    """Whether it is a `map<…>`."""
    return bool(field.message_type and field.message_type.GetOptions().map_entry)


def _schema_of(field: FieldDescriptor) -> dict[str, Any]:
    if is_map(field):
        return {"type": "object", "additionalProperties": _schema_single(_below(field).fields_by_name["value"])}
    if field.is_repeated:
        return {"type": "array", "items": _schema_single(field)}
    return _schema_single(field)


def _schema_single(field: FieldDescriptor) -> dict[str, Any]:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return {"$ref": f"#/components/schemas/{_below(field).name}"}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"description": "any JSON"}
    if field.type == FieldDescriptor.TYPE_BOOL:
        return {"type": "boolean"}
    if field.type in _TEXTS:
        return {"type": "string"}
    return {"type": "number"} if field.type in _FLOATS else {"type": "integer"}
