"""Packs whose questions the user brings as a file: GSM8K (JSON lines), MMLU (CSV or JSON lines). Nothing is fetched."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_benchmark.packs.model import Grade, Manifest, Question, ask
from espalier_kit.errors import Misconfigured

GSM8K_TEMPLATE = (
    "{question}\n\nThink step by step. End with a line that holds only '#### ' and the number that is the answer."
)
MMLU_TEMPLATE = (
    "{question}\n\nA. {a}\nB. {b}\nC. {c}\nD. {d}\n\nAnswer with the letter of the right choice, nothing else."
)
_LETTERS = "ABCD"
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
_LETTER = re.compile(r"\b([ABCD])\b")
Grader = Callable[[str, str], str]
"""(the model's text, the right answer) → why it is wrong, empty if it is right."""


@dataclass(frozen=True, slots=True)
class FilePack:
    """Questions with one right answer each."""

    manifest: Manifest
    asked: Mapping[str, Question]
    answers: Mapping[str, str]
    grader: Grader

    def questions(self) -> Sequence[Question]:
        return list(self.asked.values())

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        found = []
        for name, text in answers:
            why = self.grader(text, self.answers[name])
            found.append(Grade(name, float(not why), why))
        return found


def gsm8k(content: bytes) -> FilePack:
    """Grade-school arithmetic (Cobbe et al., 2021, arXiv 2110.14168): `question`, and `answer` ending in '#### n'."""

    def rows() -> Iterator[tuple[str, Question, str]]:
        for number, row in lines(content, "gsm8k"):
            answer = str(_field(row, "answer", number, "gsm8k"))
            if "####" not in answer:
                raise _bad("gsm8k", number, "its answer has no '#### ' with the number")
            question = str(_field(row, "question", number, "gsm8k"))
            yield str(number), Question(str(number), ask(GSM8K_TEMPLATE, max_tokens=512, question=question)), answer

    return _pack("gsm8k", content, rows(), GSM8K_TEMPLATE, grade_number, "the number after ####, else the last one")


def mmlu(content: bytes) -> FilePack:
    """Multiple choice (Hendrycks et al., 2021, arXiv 2009.03300): CSV rows question,A,B,C,D,letter; or JSON lines with
    `question`, `choices` and `answer` (0 to 3 or a letter).
    """

    def rows() -> Iterator[tuple[str, Question, str]]:
        for number, (question, choices, letter) in _mmlu_rows(content):
            item = ask(MMLU_TEMPLATE, max_tokens=16, question=question, **dict(zip("abcd", choices, strict=True)))
            yield str(number), Question(str(number), item), letter

    return _pack("mmlu", content, rows(), MMLU_TEMPLATE, grade_letter, "the first letter A to D that stands alone")


def grade_number(text: str, answer: str) -> str:
    """The same number, commas and a trailing .0 forgiven."""
    wanted = _number(answer.rpartition("####")[2])
    found = _number(text.rpartition("####")[2]) if "####" in text else _last_number(text)
    if found is None:
        return "the answer holds no number"
    return "" if found == wanted else f"{found:g} is not {wanted:g}"


def grade_letter(text: str, answer: str) -> str:
    """The first letter that stands alone."""
    found = _LETTER.search(text.strip())
    if found is None:
        return "the answer names no choice"
    return "" if found.group(1) == answer else f"{found.group(1)} is not {answer}"


def lines(content: bytes, name: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line number, object) of a JSON-lines file. Raises `Misconfigured` (BadDataset) naming the line."""
    for number, line in enumerate(_text(content, name).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise _bad(name, number, f"it is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise _bad(name, number, "it is no JSON object")
        yield number, row


def _mmlu_rows(content: bytes) -> Iterator[tuple[int, tuple[str, Sequence[str], str]]]:
    text = _text(content, "mmlu")
    if text.lstrip().startswith("{"):
        for number, row in lines(content, "mmlu"):
            choices, answer = _field(row, "choices", number, "mmlu"), _field(row, "answer", number, "mmlu")
            letter = _LETTERS[answer] if isinstance(answer, int) and 0 <= answer < 4 else str(answer)
            yield number, _checked(number, str(_field(row, "question", number, "mmlu")), choices, letter)
        return
    for number, cells in enumerate(csv.reader(io.StringIO(text)), 1):
        if cells and cells[0] != "question":
            if len(cells) != 6:
                raise _bad("mmlu", number, f"it has {len(cells)} columns; question, A, B, C, D and answer are six")
            yield number, _checked(number, cells[0], cells[1:5], cells[5].strip())


def _checked(number: int, question: str, choices: Any, letter: str) -> tuple[str, Sequence[str], str]:
    if not isinstance(choices, list) or len(choices) != 4:
        raise _bad("mmlu", number, "it needs four choices")
    if letter not in _LETTERS or len(letter) != 1:
        raise _bad("mmlu", number, f"its answer is {letter!r}; it is 0 to 3, or a letter A to D")
    return question, [str(choice) for choice in choices], letter


def _pack(
    name: str, content: bytes, rows: Iterator[tuple[str, Question, str]], template: str, grader: Grader, how: str
) -> FilePack:
    found = list(rows)
    if not found:
        raise Misconfigured(f"the file of pack {name} holds no question", reason="BadDataset")
    manifest = file_manifest(name, content, template=template, grader=how)
    asked = {key: question for key, question, _ in found}
    return FilePack(manifest, asked, {key: answer for key, _, answer in found}, grader)


def file_manifest(name: str, content: bytes, *, template: str, grader: str, left_out: int = 0) -> Manifest:
    """Of a file that the user brought: its digest is its version, its licence the user's matter."""
    digest = hashlib.sha256(content).hexdigest()
    return Manifest(
        name=name, version=digest[:12], sha256=digest, licence="the user's file", source="the user's file",
        grader=grader, template=template, left_out=left_out,
    )  # fmt: skip


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misconfigured(f"the file of pack {name} is no UTF-8 text: {error}", reason="BadDataset") from error


def _field(row: Mapping[str, Any], field: str, number: int, name: str) -> Any:
    if field not in row:
        raise _bad(name, number, f"it has no {field!r}")
    return row[field]


def _bad(name: str, number: int, why: str) -> Misconfigured:
    return Misconfigured(f"line {number} of the file of pack {name}: {why}", reason="BadDataset")


def _number(text: str) -> float | None:
    found = _NUMBER.search(text)
    return float(found.group().replace(",", "")) if found else None


def _last_number(text: str) -> float | None:
    found: list[str] = _NUMBER.findall(text)
    return float(found[-1].replace(",", "")) if found else None
