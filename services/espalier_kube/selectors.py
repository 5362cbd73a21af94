"""Label and field selectors, evaluated as the API server does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")


def matches_labels(selector: str | None, labels: Mapping[str, str]) -> bool:
    """`a=b,c!=d,e,!f,g in (h,i)`; an empty selector matches all."""
    return all(_label_term(term, labels) for term in _terms(selector))


def matches_fields(selector: str | None, obj: Mapping[str, Any]) -> bool:
    """`metadata.name=x,spec.nodeName!=y`; an absent field equals the empty string."""
    return all(_equality(term, lambda path: _field(obj, path) or "") for term in _terms(selector))


def _terms(selector: str | None) -> list[str]:
    return [t.strip() for t in re.split(r",(?![^()]*\))", selector) if t.strip()] if selector else []


def _label_term(term: str, labels: Mapping[str, str]) -> bool:
    if found := _SET.match(term):
        values = {v.strip() for v in found["values"].split(",")}
        return (labels.get(found["key"]) in values) == (found["op"] == "in")
    if "=" in term:
        return _equality(term, labels.get)
    return term[1:] not in labels if term.startswith("!") else term in labels


def _equality(term: str, value_of: Any) -> bool:
    key, operator, wanted = re.split(r"(!=|==|=)", term, maxsplit=1)
    return bool((value_of(key.strip()) == wanted.strip()) != (operator == "!="))


def _field(obj: Any, path: str) -> str | None:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, Mapping) else None
    return None if obj is None else str(obj)
