"""Judge: what one judge is asked about one submission, and what its answer says. Pure; `servers` does the asking.

The system message is the same for a whole class (servers keep its prompt in their cache); the student's text follows
between fences that are new for every call. Keys are short numbers, since every token of a verdict costs time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import Any, get_args

from espalier_api.tasks import Judge
from espalier_grading.bundle import Bundle, Criterion
from espalier_grading.model import Answer, Level, Prepared, Verdict

FENCE_WORD = "STUDENT"
_PLAIN = re.compile(
    r'["\'*(#]*\b(\d{1,2})\b["\'*)]*\s*[.:)=-]\s*.{0,200}?\b(CANNOT_ASSESS|UNMET|PARTIAL|MET)\b', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Question:
    """One call: messages, the schema of the answer, and what the answer's numbers mean."""

    judge: Judge
    system: str
    user: str
    schema: Mapping[str, Any]
    criteria: Mapping[int, Criterion]
    texts: Mapping[tuple[int, str], str]
    decided: tuple[Verdict, ...]
    flags: tuple[str, ...] = ()

    @property
    def needs_model(self) -> bool:
        """Whether any criterion is left for the model."""
        return bool(self.criteria)


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer as read. `is_plain_text` when it was no valid JSON and only levels could be found."""

    verdicts: tuple[Verdict, ...]
    comment: str
    is_plain_text: bool


def ask_about(bundle: Bundle, prepared: Prepared, *, judge: Judge, fence: str) -> Question:
    """The question of one judge about one submission. Untouched cells are UNMET by code and never sent."""
    answers = {answer.cell: answer for answer in prepared.answers}
    numbered = dict(enumerate(bundle.criteria(judge), 1))
    open_ = {number: c for number, c in numbered.items() if not _is_untouched(c, answers)}
    decided = tuple(
        Verdict(criterion=c.id, level="UNMET", by="code") for number, c in numbered.items() if number not in open_
    )
    limit = bundle.assignment.judging.answer_characters
    texts = {
        (number, str(label)): _bounded(answers[cell].text, limit)
        for number, criterion in open_.items()
        for label, cell in enumerate(criterion.cells, 1)
        if cell in answers
    }
    return Question(
        judge=judge,
        system=system_message(bundle, judge),
        user=user_message(texts, fence=fence),
        schema=schema(bundle, judge, open_),
        criteria=open_,
        texts=texts,
        decided=decided,
        flags=tuple(
            dict.fromkeys(
                flag for c in open_.values() for cell in c.cells if cell in answers for flag in answers[cell].flags
            )
        ),
    )


def system_message(bundle: Bundle, judge: Judge) -> str:
    """The shared rubric; no student's word in it."""
    template = Template(files("espalier_grading").joinpath(f"prompts/{judge}.txt").read_text(encoding="utf-8"))
    shape = '"1": {"q": QUOTE, "c": CELL, "v": LEVEL}, …' + (', "comment": COMMENT' if judge == "feedback" else "")
    return template.substitute(
        subject=bundle.assignment.subject,
        quote=bundle.assignment.judging.quote_characters,
        fence=FENCE_WORD,
        criteria="\n".join(_criterion_text(number, c) for number, c in enumerate(bundle.criteria(judge), 1)),
        shape="{" + shape + "}",
    ).strip()


def user_message(texts: Mapping[tuple[int, str], str], *, fence: str) -> str:
    """The student's answers, each inside fences that carry this call's random word."""
    numbers = sorted({number for number, _ in texts})
    parts = [f"Judge criteria {', '.join(map(str, numbers))}."]
    for (number, label), text in texts.items():
        parts.append(f"<{FENCE_WORD}-{fence} criterion {number} cell {label}>\n{text}\n</{FENCE_WORD}-{fence}>")
    parts.append(f"Copy each q word for word from between the {FENCE_WORD} marks.")
    return "\n".join(parts)


def schema(bundle: Bundle, judge: Judge, criteria: Mapping[int, Criterion]) -> dict[str, Any]:
    """JSON Schema of the answer: nothing optional, nothing unbounded."""
    bounds = bundle.assignment.judging
    properties: dict[str, Any] = {}
    for number, criterion in criteria.items():
        properties[str(number)] = _object(
            {
                "q": {"type": "string", "maxLength": bounds.quote_characters},
                "c": {"type": "string", "enum": [str(label) for label in range(1, len(criterion.cells) + 1)]},
                "v": {"type": "string", "enum": list(get_args(Level))},
            }
        )
    if judge == "feedback":
        properties["comment"] = {"type": "string", "maxLength": bounds.comment_characters}
    return _object(properties)


def read_answer(question: Question, content: str) -> Reading:
    """The model's verdicts, by JSON if it is as asked, else the levels that plain text names; missing ones cannot be
    assessed.
    """
    value = _json(content)
    if value is not None and (verdicts := _verdicts(question, value)) is not None:
        comment = value.get("comment", "")
        return Reading(verdicts, comment if isinstance(comment, str) else "", is_plain_text=False)
    found = {int(number): level for number, level in reversed(_PLAIN.findall(content))}
    plain = tuple(
        Verdict(
            criterion=criterion.id,
            level=found.get(number, "CANNOT_ASSESS"),
            void="" if number in found else "no verdict in the answer",
        )
        for number, criterion in question.criteria.items()
    )
    return Reading(plain, "", is_plain_text=True)


def _verdicts(question: Question, value: Mapping[str, Any]) -> tuple[Verdict, ...] | None:
    verdicts = []
    for number, criterion in question.criteria.items():
        entry = value.get(str(number))
        if not isinstance(entry, dict) or entry.get("v") not in get_args(Level):
            return None
        label = str(entry.get("c", ""))
        cell = criterion.cells[int(label) - 1] if label.isdigit() and 1 <= int(label) <= len(criterion.cells) else ""
        verdicts.append(
            Verdict(criterion=criterion.id, level=entry["v"], quote=str(entry.get("q", ""))[:400], cell=cell)
        )
    return tuple(verdicts)


def _json(content: str) -> dict[str, Any] | None:
    text = content.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _is_untouched(criterion: Criterion, answers: Mapping[str, Answer]) -> bool:
    return all(cell not in answers or answers[cell].is_unchanged for cell in criterion.cells)


def _criterion_text(number: int, criterion: Criterion) -> str:
    levels = "".join(f" {level}: {meaning}" for level, meaning in criterion.levels.items())
    reference = f" Reference: {criterion.reference}" if criterion.reference else ""
    return f"{number}. {criterion.question}{levels}{reference}"


def _bounded(text: str, limit: int) -> str:
    """Cut to the limit; tokens that chat templates give a meaning to are broken up."""
    return text[:limit].replace("<|", "< |").replace("|>", "| >")


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
