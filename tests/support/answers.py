"""What a model could answer to the packs' questions: right, wrong, or hostile to whoever runs it."""

from __future__ import annotations

from typing import Any

from espalier_benchmark.packs import bfcl
from espalier_benchmark.packs.catalog import open_pack
from espalier_benchmark.packs.model import first

HEAD = "def has_close_elements(numbers, threshold):\n"
"""Of HumanEval/0."""
RIGHT = "return any(abs(a - b) < threshold for i, a in enumerate(numbers) for b in numbers[:i])"
UNSEEN = (
    "import subprocess, sys, time, types\n"
    "subprocess.sys = types.SimpleNamespace(**{**vars(sys), 'audit': lambda *_: None})"
)
"""From here on processes start past Python's own audit: the kernel's limits are what is left."""
SPAWN = "subprocess.Popen(['sleep', '60'], start_new_session=True)"


def answer(*lines: str, head: str = HEAD) -> str:
    """A function of these lines, as a model gives it."""
    body = "\n".join(f"    {line}" for text in lines for line in text.splitlines())
    return f"```python\n{head}{body}\n```"


def solutions(name: str, items: int, *, seed: int = 0) -> dict[str, str]:
    """Right answers to a pack's first questions, by the question."""
    pack = open_pack(name, items=items, seed=seed)
    questions = first(pack.questions(), count=items)
    if name.startswith("bfcl:"):
        rows = bfcl.rows("simple" if name == "bfcl:simple" else "parallel")
        return {q.item.messages[-1][1]: calls_of(rows[q.id][1]) for q in questions}
    return {q.item.messages[-1][1]: pack.solution(q.id) for q in questions}  # type: ignore[attr-defined]


def calls_of(allowed: Any) -> str:
    """The first of the allowed values each, as calls."""
    return "[" + ", ".join(_call(call) for call in allowed) + "]"


def _call(call: dict[str, dict[str, list[object]]]) -> str:
    ((name, options),) = call.items()
    chosen = {parameter: _value(values) for parameter, values in options.items() if any(v != "" for v in values)}
    return f"{name}({', '.join(f'{parameter}={value!r}' for parameter, value in chosen.items())})"


def _value(options: list[object]) -> object:
    value = next(option for option in options if option != "")
    if isinstance(value, dict):
        return {key: possible[0] for key, possible in value.items()}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [_value([entry]) for entry in value]
    return value
