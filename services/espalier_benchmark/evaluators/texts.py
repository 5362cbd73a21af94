"""The file that evaluators read: JSON lines with `prompt` or `text`, `context`, `reference`. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from espalier_api.benchmarkload import Evaluator
from espalier_benchmark.packs.files import lines
from espalier_kit.errors import Misconfigured


@dataclass(frozen=True, slots=True)
class TextRow:
    """One line; absent fields are empty."""

    id: str
    prompt: str = ""
    text: str = ""
    context: str = ""
    reference: str = ""


def read_texts(content: bytes, evaluator: Evaluator, *, targets: int) -> list[TextRow]:
    """The rows that this evaluator can use. Raises `Misconfigured` (BadDataset) for a broken line or for none."""
    rows = [row for row in (_row(number, row) for number, row in lines(content, "accuracy.texts")) if row]
    needed = _needed(evaluator, targets)
    found = [row for row in rows if all(getattr(row, name) for name in needed)]
    if not found:
        raise Misconfigured(
            f"accuracy.texts has no line with {' and '.join(needed)}, which evaluator {evaluator} reads",
            reason="BadDataset",
        )
    return found


def _needed(evaluator: Evaluator, targets: int) -> tuple[str, ...]:
    match evaluator:
        case "perplexity":
            return ("text",)
        case "faithfulness":
            return ("prompt", "context")
        case "judge" if targets == 1:
            return ("prompt", "reference")
        case _:
            return ("prompt",)


def _row(number: int, row: object) -> TextRow | None:
    assert isinstance(row, dict)
    fields = {name: row.get(name) or "" for name in ("prompt", "text", "context", "reference")}
    wrong = [name for name, value in fields.items() if not isinstance(value, str)]
    if wrong:
        raise Misconfigured(f"line {number} of accuracy.texts: {wrong[0]} is no text", reason="BadDataset")
    return TextRow(str(number), **fields) if any(fields.values()) else None
