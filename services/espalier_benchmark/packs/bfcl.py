"""Berkeley Function Calling, categories simple (Python) and parallel: the call is parsed as Python and compared with
the answers that the data set allows; nothing is executed.

The rules are the data set's: every required parameter is there, none that is unknown, each value of the declared type
and among those allowed; strings compare without case, spaces and `,./-_*^`; parallel calls in any order.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from espalier_benchmark.packs import wheels
from espalier_benchmark.packs.model import Grade, Manifest, Question, ask

PACKAGE = "bfcl-eval"
Category = Literal["simple", "parallel"]
_FILES: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "simple": (
        (
            "bfcl_eval/data/BFCL_v4_simple_python.json",
            "82dd63ba502eb2520c6b5d1d9a5c4b590e03ff261565175561f6228a367d1991",
        ),
        (
            "bfcl_eval/data/possible_answer/BFCL_v4_simple_python.json",
            "90cd5bc653690ee8e459b5b3f3fc9458606f7f3fcbf795bb51b7dc581f8c86dc",
        ),
    ),
    "parallel": (
        ("bfcl_eval/data/BFCL_v4_parallel.json", "19f51a82eff42e5d62541aa500115a056eb78f437c2ba1f10415fd7c8e5dda84"),
        (
            "bfcl_eval/data/possible_answer/BFCL_v4_parallel.json",
            "8a6aa19c1adddc6a5a2f7e40f9dbf30cc7e95815e7b830c90589ab318229e0f0",
        ),
    ),
}
TEMPLATE = (
    "You can call these functions, given as JSON:\n{functions}\n\n"
    "Answer the request with calls only, no other text, in the form\n"
    "[name(parameter=value, ...), name(parameter=value, ...)]\n"
    "with Python literals as values and one call for each thing that is asked.\n\nRequest: {request}"
)
MAX_TOKENS = 384
_TYPES: Mapping[str, type] = {
    "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict,
    "any": str,
}  # fmt: skip
_IGNORED = re.compile(r"[ ,./\-_*^]")
Call = tuple[str, Mapping[str, Any]]


class FunctionCalls:
    """The pack of one category."""

    def __init__(self, category: Category) -> None:
        self._category = category

    @property
    def manifest(self) -> Manifest:
        (name, sha256), _ = _FILES[self._category]
        return Manifest(
            name=f"bfcl:{self._category}",
            version=wheels.version(PACKAGE),
            sha256=sha256,
            licence="Apache-2.0",
            source=f"wheel {PACKAGE}: {name}",
            grader="the calls' syntax trees against the allowed answers",
            template=TEMPLATE,
        )

    def questions(self) -> Sequence[Question]:
        return [
            Question(
                row["id"],
                ask(
                    TEMPLATE,
                    max_tokens=MAX_TOKENS,
                    functions=json.dumps(row["function"]),
                    request="\n".join(message["content"] for message in row["question"][0]),
                ),
            )
            for row, _ in rows(self._category).values()
        ]

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        return [self._one(name, text) for name, text in answers]

    def _one(self, name: str, text: str) -> Grade:
        row, allowed = rows(self._category)[name]
        try:
            why = difference(calls(text), allowed, row["function"])
        except ValueError as error:
            why = str(error)
        return Grade(name, float(not why), why)


@lru_cache(maxsize=2)
def rows(category: Category) -> Mapping[str, tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]:
    """(question, allowed calls) by id. Raises `Misconfigured` where the wheel is absent."""
    (asked, asked_sha), (gold, gold_sha) = _FILES[category]
    answers = {row["id"]: row["ground_truth"] for row in _lines(gold, gold_sha)}
    return {row["id"]: (row, answers[row["id"]]) for row in _lines(asked, asked_sha)}


def calls(text: str) -> list[Call]:
    """The calls that a text consists of, a code fence around them forgiven. Raises ValueError in words."""
    body = re.sub(r"^```\w*\n|```$", "", text.strip()).strip()
    try:
        tree = ast.parse(body if body.startswith("[") else f"[{body}]", mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise ValueError("the answer is no list of calls") from error
    if not isinstance(tree, ast.List) or not tree.elts:
        raise ValueError("the answer is no list of calls")
    return [_call(node) for node in tree.elts]


def difference(found: Sequence[Call], allowed: Sequence[Mapping[str, Any]], functions: Sequence[Any]) -> str:
    """Why the calls are not among the allowed ones; empty if they are. Pure."""
    if len(found) != len(allowed):
        return f"{len(found)} calls instead of {len(allowed)}"
    described = {function["name"]: function["parameters"] for function in functions}
    left = list(allowed)
    for call in found:
        reasons = [_mismatch(call, each, described) for each in left]
        if "" not in reasons:
            return reasons[0]
        left.pop(reasons.index(""))
    return ""


def _lines(name: str, sha256: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in wheels.data(PACKAGE, name, sha256=sha256).decode().splitlines()]


def _call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise ValueError("the answer holds something that is no call")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise ValueError("parameters must be given by name")
    values = {}
    for keyword in node.keywords:
        try:
            values[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            values[str(keyword.arg)] = ast.unparse(keyword.value)  # a variable's name is text here
    return ast.unparse(node.func), values


def _mismatch(call: Call, allowed: Mapping[str, Any], described: Mapping[str, Any]) -> str:
    name, values = call
    ((wanted, options),) = allowed.items()
    if name != wanted:
        return f"called {name} instead of {wanted}"
    properties = described[wanted]["properties"]
    for parameter in described[wanted].get("required", ()):
        if parameter not in values:
            return f"{parameter} is missing"
    for parameter, value in values.items():
        if parameter not in properties or parameter not in options:
            return f"{parameter} is unknown"
        if not _is_allowed(value, options[parameter], properties[parameter]):
            return f"{parameter} is {value!r}"[:200]
    missing = [p for p, possible in options.items() if p not in values and "" not in possible]
    return f"{missing[0]} is missing" if missing else ""


def _is_allowed(value: Any, options: Sequence[Any], description: Mapping[str, Any]) -> bool:
    wanted = _TYPES[description["type"]]
    if wanted is float and type(value) is int:
        value = float(value)
    if isinstance(value, tuple):
        value = list(value)
    known = next((type(option) for option in options if option != ""), wanted)
    if type(value) not in (wanted, known):
        return False
    return any(_is_same(value, option) for option in options if option != "" or value == "")


def _is_same(value: Any, option: Any) -> bool:
    """An option's dictionary holds lists of allowed values; an option's list is compared value by value."""
    if isinstance(value, str) and isinstance(option, str):
        return _plain(value) == _plain(option)
    if isinstance(value, list | tuple) and isinstance(option, list):
        return len(value) == len(option) and all(_is_same(v, o) for v, o in zip(value, option, strict=True))
    if isinstance(value, dict) and isinstance(option, dict):
        known = all(key in option and any(_is_same(v, o) for o in option[key]) for key, v in value.items())
        return known and all(key in value or "" in possible for key, possible in option.items())
    return (
        type(value) in (type(option), float, int)
        and not isinstance(value, bool) ^ isinstance(option, bool)
        and (bool(value == option))
    )


def _plain(text: str) -> str:
    return _IGNORED.sub("", text).lower().replace("'", '"')
