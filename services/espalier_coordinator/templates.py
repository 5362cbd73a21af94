"""Job templates: tasks under a name, with {parameters} that a submission fills in, strictly. No I/O.

In keys, types, tags, dependencies and the strings of a JSON payload `{name}` becomes the parameter's text; a payload's
string that is nothing but `{name:json}` becomes the JSON value that the parameter spells. `{{` and `}}` are braces.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from espalier_coordinator.checks import check_tasks
from espalier_coordinator.model import NewTask
from espalier_kit.errors import Permanent

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)(:json)?\}|[{}]")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Template:
    """`revision` counts its versions: 0 where it was never stored."""

    namespace: str
    name: str
    tasks: tuple[NewTask, ...]
    description: str = ""
    defaults: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    required: tuple[str, ...] = ()
    revision: int = 0

    @property
    def parameters(self) -> frozenset[str]:
        """All that may be given."""
        return frozenset(self.defaults) | frozenset(self.required)


def check(template: Template) -> None:
    """Raise `Permanent` with a sentence: every parameter is declared once and used, every brace means something."""
    if not _NAME.fullmatch(template.name):
        raise _invalid(f"{template.name!r} is no template name: lower-case letters, digits, '-' and '.', at most 63")
    if not template.tasks:
        raise _invalid(f"template {template.name!r} has no tasks")
    for name in template.parameters:
        if not _PARAMETER.fullmatch(name):
            raise _invalid(f"template {template.name!r}: {name!r} is no parameter name: letters, digits and '_'")
    if both := frozenset(template.defaults) & frozenset(template.required):
        raise _invalid(f"template {template.name!r}: {_names(both)} cannot be required and have a default as well")
    used = frozenset(_placeholders(template))
    if unknown := used - template.parameters:
        raise _invalid(f"template {template.name!r} uses {_names(unknown)}: declare them in `required` or `defaults`, "
                       "or write {{ and }} for braces")
    if unused := template.parameters - used:
        raise _invalid(f"template {template.name!r} declares {_names(unused)} and uses them nowhere: remove them")


def render(template: Template, parameters: Mapping[str, str]) -> tuple[NewTask, ...]:
    """The tasks with every parameter filled in. Raises `Permanent` for a missing or an unknown one."""
    if unknown := frozenset(parameters) - template.parameters:
        known = f"it knows {_names(template.parameters)}" if template.parameters else "it has none"
        raise Permanent(f"template {template.name!r} has no parameter {_names(unknown)}: {known}",
                        reason="UnknownParameter")
    values = {**template.defaults, **parameters}
    if missing := frozenset(template.required) - frozenset(values):
        raise Permanent(f"template {template.name!r} needs {_names(missing)}: pass a value for each",
                        reason="MissingParameter")
    tasks = tuple(_rendered(task, template.name, values) for task in template.tasks)
    check_tasks(tasks, ())
    return tasks


def _rendered(task: NewTask, name: str, values: Mapping[str, str]) -> NewTask:
    def text(source: str) -> str:
        return _text(source, values, name)

    return task._replace(
        key=text(task.key), type=text(task.type), tags=tuple(text(tag) for tag in task.tags),
        depends_on=tuple(replace(d, key=text(d.key)) for d in task.depends_on),
        payload=_payload(task, name, lambda leaf: _leaf(leaf, values, name)),
    )


def _payload(task: NewTask, name: str, leaf: Callable[[str], Any]) -> bytes:
    if not task.payload:
        return b""
    try:
        return json.dumps(_mapped(json.loads(task.payload.decode()), leaf), separators=(",", ":")).encode()
    except (ValueError, RecursionError) as error:
        raise _invalid(f"template {name!r}, task {task.key!r}: the payload is not JSON in UTF-8, or nested too deeply: "
                       f"{error}") from error


def _mapped(tree: Any, leaf: Callable[[str], Any]) -> Any:
    if isinstance(tree, str):
        return leaf(tree)
    if isinstance(tree, list):
        return [_mapped(item, leaf) for item in tree]
    if isinstance(tree, dict):
        return {key: _mapped(item, leaf) for key, item in tree.items()}
    return tree


def _leaf(source: str, values: Mapping[str, str], name: str) -> Any:
    match = _PART.fullmatch(source)
    if not match or not match[2]:
        return _text(source, values, name)
    try:
        return json.loads(values[match[1]])
    except (ValueError, RecursionError) as error:
        said = f"{values[match[1]]!r:.200}: {error}"
        raise Permanent(f"template {name!r}: parameter {match[1]!r} must be JSON, got {said}",
                        reason="InvalidParameter") from error


def _text(source: str, values: Mapping[str, str], name: str) -> str:
    def part(match: re.Match[str]) -> str:
        if match[0] in ("{{", "}}"):
            return match[0][0]
        if match[1] is None or match[2]:
            raise _invalid(f"template {name!r}: {match[0]!r} in {source!r} means nothing there: write {{{{ and }}}} for"
                           " braces, and :json only where the parameter is the whole string")
        return values[match[1]]

    return _PART.sub(part, source)


class _Seen(dict[str, str]):
    """Every parameter has a value here, and was asked for afterwards."""

    def __missing__(self, name: str) -> str:
        return self.setdefault(name, "null")


def _placeholders(template: Template) -> Iterator[str]:
    seen = _Seen()
    for task in template.tasks:
        _rendered(task, template.name, seen)
    yield from seen


def _names(names: frozenset[str]) -> str:
    return ", ".join(repr(name) for name in sorted(names))


def _invalid(message: str) -> Permanent:
    return Permanent(message, reason="InvalidTemplate")
