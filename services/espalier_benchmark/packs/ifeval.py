"""IFEval (Zhou et al., 2023, arXiv 2311.07911): instructions whose keeping a program can see. The user brings the file.

Strict accuracy by prompt: every instruction of it is kept. Items with an instruction that needs a language detector are
left out, and the manifest says how many.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_benchmark.packs.files import file_manifest, lines
from espalier_benchmark.packs.model import Grade, Manifest, Question, ask
from espalier_kit.errors import Misconfigured

TEMPLATE = "{prompt}"
MAX_TOKENS = 1024
Arguments = Mapping[str, Any]
Check = Callable[[str, Arguments], bool]


@dataclass(frozen=True, slots=True)
class IfEval:
    """The pack."""

    manifest: Manifest
    rows: Mapping[str, Mapping[str, Any]]

    def questions(self) -> Sequence[Question]:
        return [
            Question(name, ask(TEMPLATE, max_tokens=MAX_TOKENS, prompt=row["prompt"]))
            for name, row in self.rows.items()
        ]

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        return [_grade(name, self.rows[name], text) for name, text in answers]


def ifeval(content: bytes) -> IfEval:
    """Read the file: `key`, `prompt`, `instruction_id_list`, `kwargs`. Raises `Misconfigured` (BadDataset)."""
    kept, left_out = {}, 0
    for number, row in lines(content, "ifeval"):
        missing = [f for f in ("key", "prompt", "instruction_id_list", "kwargs") if f not in row]
        if missing:
            raise Misconfigured(
                f"line {number} of the file of pack ifeval: it has no {missing[0]!r}", reason="BadDataset"
            )
        if all(name in CHECKS for name in row["instruction_id_list"]):
            kept[str(row["key"])] = row
        else:
            left_out += 1
    if not kept:
        raise Misconfigured("the file of pack ifeval holds no item that can be checked offline", reason="BadDataset")
    how = "every instruction is kept (strict, by prompt)"
    return IfEval(file_manifest("ifeval", content, template=TEMPLATE, grader=how, left_out=left_out), kept)


def _grade(name: str, row: Mapping[str, Any], text: str) -> Grade:
    pairs = zip(row["instruction_id_list"], row["kwargs"], strict=False)
    broken = [instruction for instruction, arguments in pairs if not keeps(instruction, text, arguments or {})]
    return Grade(name, float(not broken), f"not kept: {', '.join(broken)}" if broken else "")


def keeps(instruction: str, text: str, arguments: Arguments) -> bool:
    """Whether a text keeps one instruction; an empty text keeps none."""
    return bool(text.strip()) and CHECKS[instruction](text, arguments)


def _relation(found: int, arguments: Arguments, *, relation: str, wanted: str) -> bool:
    limit = int(arguments[wanted])
    return found < limit if arguments.get(relation, "at least") == "less than" else found >= limit


def _keywords(text: str, arguments: Arguments) -> bool:
    return all(re.search(re.escape(word), text, re.IGNORECASE) for word in arguments["keywords"])


def _frequency(text: str, arguments: Arguments) -> bool:
    found = len(re.findall(re.escape(arguments["keyword"]), text, re.IGNORECASE))
    return _relation(found, arguments, relation="relation", wanted="frequency")


def _forbidden(text: str, arguments: Arguments) -> bool:
    return not any(re.search(rf"\b{re.escape(w)}\b", text, re.IGNORECASE) for w in arguments["forbidden_words"])


def _letters(text: str, arguments: Arguments) -> bool:
    found = text.lower().count(arguments["letter"].lower())
    return _relation(found, arguments, relation="let_relation", wanted="let_frequency")


def _words(text: str, arguments: Arguments) -> bool:
    return _relation(len(re.findall(r"\w+", text)), arguments, relation="relation", wanted="num_words")


def _sentences(text: str, arguments: Arguments) -> bool:
    found = len([part for part in re.split(r"[.!?]+(?:\s|$)", text) if part.strip()])
    return _relation(found, arguments, relation="relation", wanted="num_sentences")


def _paragraphs(text: str, arguments: Arguments) -> bool:
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    inner = parts[1:-1] if len(parts) > 1 else parts
    return all(inner) and sum(bool(part) for part in parts) == int(arguments["num_paragraphs"])


def _nth_paragraph(text: str, arguments: Arguments) -> bool:
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    nth = int(arguments["nth_paragraph"])
    if len(parts) != int(arguments["num_paragraphs"]) or nth > len(parts):
        return False
    first = re.sub(r"\W", "", parts[nth - 1].split()[0])
    return first.lower() == str(arguments["first_word"]).lower()


def _postscript(text: str, arguments: Arguments) -> bool:
    marker = str(arguments["postscript_marker"])
    pattern = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}.get(marker, re.escape(marker))
    return re.search(rf"^\s*{pattern}", text, re.IGNORECASE | re.MULTILINE) is not None


def _placeholders(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"\[.*?\]", text)) >= int(arguments["num_placeholders"])


def _bullets(text: str, arguments: Arguments) -> bool:
    return len(re.findall(r"^\s*(?:\*[^*].*|-.*)$", text, re.MULTILINE)) == int(arguments["num_bullets"])


def _highlights(text: str, arguments: Arguments) -> bool:
    found = [m for m in re.findall(r"\*\*[^\n*]+\*\*|\*[^\n*]+\*", text) if m.strip("*").strip()]
    return len(found) >= int(arguments["num_highlights"])


def _sections(text: str, arguments: Arguments) -> bool:
    pattern = rf"\s?{re.escape(str(arguments['section_spliter']))}\s?\d+\s?"
    return len(re.findall(pattern, text)) >= int(arguments["num_sections"])


def _json(text: str, _: Arguments) -> bool:
    body = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip(), flags=re.IGNORECASE)
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _constrained(text: str, _: Arguments) -> bool:
    return any(option in text for option in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def _two_responses(text: str, _: Arguments) -> bool:
    parts = text.split("******")
    answers = [part.strip() for part in parts if part.strip()]
    return all(part.strip() for part in parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _repeat(text: str, arguments: Arguments) -> bool:
    return text.strip().lower().startswith(str(arguments["prompt_to_repeat"]).strip().lower())


def _title(text: str, _: Arguments) -> bool:
    return any(found.strip("<> ") for found in re.findall(r"<<[^\n]+>>", text))


def _ends(text: str, arguments: Arguments) -> bool:
    return text.strip().strip('"').lower().endswith(str(arguments["end_phrase"]).strip().lower())


def _capitals(text: str, arguments: Arguments) -> bool:
    found = sum(word.isupper() for word in re.findall(r"\b\w+\b", text))
    return _relation(found, arguments, relation="capital_relation", wanted="capital_frequency")


CHECKS: Mapping[str, Check] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _frequency,
    "keywords:forbidden_words": _forbidden,
    "keywords:letter_frequency": _letters,
    "length_constraints:number_words": _words,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:postscript": _postscript,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:constrained_response": _constrained,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeat,
    "startend:end_checker": _ends,
    "startend:quotation": lambda text, _: text.strip().startswith('"') and text.strip().endswith('"'),
    "punctuation:no_comma": lambda text, _: "," not in text,
    "change_case:english_capital": lambda text, _: text.isupper(),
    "change_case:english_lowercase": lambda text, _: text.islower(),
    "change_case:capital_word_frequency": _capitals,
}
