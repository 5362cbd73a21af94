"""`reasoning-gym:<task>`: items made from a seed, scored by their own algorithm; none of them can have been learnt."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from espalier_benchmark.packs import gym, sandboxed, wheels
from espalier_benchmark.packs.model import RIGHT, Grade, Manifest, Question, ask
from espalier_grading.sandbox import Sandbox
from espalier_kit.errors import Misconfigured
from espalier_kit.execution import PlatformFault

PACKAGE = "reasoning-gym"
TEMPLATE = "{question}\n\nThink if you need to, then give the final answer alone between <answer> and </answer>."
MAX_TOKENS = 1024
DEFAULT_ITEMS = 100
_SECONDS = 60.0
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class ReasoningGym:
    """One task of the library: `items` of them from `seed`."""

    def __init__(self, task: str, *, seed: int, items: int, sandbox: Sandbox) -> None:
        """Raises `Misconfigured`: no such task, one whose packages are missing, or none that makes single items."""
        self._task, self._seed, self._items, self._sandbox = task, seed, items, sandbox
        self._made = _dataset(task, items=items, seed=seed)

    @property
    def manifest(self) -> Manifest:
        version = wheels.version(PACKAGE)
        identity = f"{PACKAGE}=={version}:{self._task}:{self._seed}:{self._items}"
        return Manifest(
            name=f"reasoning-gym:{self._task}",
            version=version,
            sha256=hashlib.sha256(identity.encode()).hexdigest(),
            licence="Apache-2.0",
            source=f"wheel {PACKAGE}, generated from seed {self._seed}",
            grader="the task's own scorer, in the sandbox",
            template=TEMPLATE,
        )

    def questions(self) -> Sequence[Question]:
        return [
            Question(str(number), ask(TEMPLATE, max_tokens=MAX_TOKENS, question=self._made[number]["question"]))
            for number in range(self._items)
        ]

    def solution(self, name: str) -> str | None:
        """The generator's own, if it makes one."""
        answer = self._made[int(name)]["answer"]
        return None if answer is None else f"<answer>{answer}</answer>"

    async def grade(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        tagged = [(name, found) for name, text in answers if (found := extract(text)) is not None]
        scored = iter(await self._score(tagged) if tagged else [])
        return [
            Grade(name, 0.0, "no answer between <answer> and </answer>") if extract(text) is None else next(scored)
            for name, text in answers
        ]

    async def _score(self, answers: Sequence[tuple[str, str]]) -> list[Grade]:
        arguments = {
            "task": self._task,
            "size": self._items,
            "seed": self._seed,
            "answers": [(int(name), answer) for name, answer in answers],
        }
        request = {
            "do": "score",
            "module": "gym",
            "path": [str(Path(gym.__file__).parent)],
            "arguments": arguments,
            "count": len(answers),
        }
        ended = await sandboxed.run(self._sandbox, request, seconds=_SECONDS)
        if not ended.said:
            raise PlatformFault(f"the scorer did not start: {ended.why[-300:]}", reason="ScorerFailed")
        grades = [
            Grade(name, line["score"], line["why"] or ("" if line["score"] >= RIGHT else "not the answer"))
            for (name, _), line in zip(answers, ended.said[1:], strict=False)
        ]
        if len(grades) == len(answers):
            return grades
        # An answer that ends its scorer is wrong; those behind it are scored without it.
        grades.append(Grade(answers[len(grades)][0], 0.0, "its scorer did not come to an end"))
        rest = answers[len(grades) :]
        return grades + (await self._score(rest) if rest else [])


def extract(text: str) -> str | None:
    """What stands in the last pair of tags; None without one."""
    found: list[str] = _ANSWER.findall(text)
    return found[-1].strip() if found else None


def _dataset(task: str, *, items: int, seed: int) -> Any:
    try:
        made = gym.dataset(task, size=items, seed=seed)
        made[0]["question"]
    except ImportError as error:
        raise Misconfigured(
            f"reasoning-gym is not installed here ({error}): pip install --no-deps {PACKAGE}", reason="PackNotInstalled"
        ) from error
    except KeyError as error:
        raise Misconfigured(
            f"reasoning-gym has no task {task!r}; it has, for example, {', '.join(gym.tasks()[:8])}",
            reason="UnknownPack",
        ) from error
    except gym.Absent as error:
        raise Misconfigured(f"reasoning-gym:{task}: {error}", reason="PackNotInstalled") from error
    except ValueError as error:
        raise Misconfigured(f"reasoning-gym:{task} cannot be asked by itself: {error}", reason="BadPack") from error
    return made
