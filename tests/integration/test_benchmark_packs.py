"""Packs whose answers run: in the real sandbox. The data set's own solutions are right, whoever misbehaves is not."""

from __future__ import annotations

import psutil
import pytest

from espalier_benchmark.packs import human_eval, reasoning
from espalier_grading.sandbox import Bubblewrap

FIRST = "HumanEval/0"
HOSTILE = {
    "opens a socket": ("import socket\nsocket.socket()", "opened a socket"),
    "opens a socket below Python's own module": ("import _socket\n_socket.socket()", "opened a socket"),
    "opens one and hides it": ("import socket\ntry: socket.socket()\nexcept BaseException: pass", "opened a socket"),
    "forks without end": ("import os\nwhile True: os.fork()", "started a process"),
    "starts a shell": ("import subprocess\nsubprocess.run(['sh'])", "started a process"),
    "calls the C library": ("import ctypes\nctypes.CDLL(None).fork()", "loaded a library"),
    "starts threads without end": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()", "can't start",
    ),
    "fills memory": ("x = []\nwhile True: x.append(bytearray(10**8))", "MemoryError"),
    "fills the disk by one file": ("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(10**7))", "too large"),
    "fills the disk by many": (
        "import itertools\nfor i in itertools.count(): open(f'/tmp/{i}', 'wb').write(bytes(10**7))", "No space left",
    ),
    "writes elsewhere": ("open('/etc/x', 'w')", "denied"),
    "leaves with success": ("import os\nos._exit(0)", "ended before its tests did"),
    "ends itself politely": ("raise SystemExit(0)", "SystemExit"),
}  # fmt: skip


async def test_the_canonical_solutions_score_all_of_humaneval() -> None:
    pack = human_eval.HumanEval(Bubblewrap())
    grades = await pack.grade([(name, pack.solution(name)) for name in human_eval.problems()])
    assert [grade for grade in grades if not grade.is_right] == []
    assert len(grades) == 164


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_solution_is_stopped_and_wrong(what: str) -> None:
    body, why = HOSTILE[what]
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    head = "def has_close_elements(numbers, threshold):\n"
    code = head + "\n".join(f"    {line}" for line in body.splitlines())
    (grade,) = await human_eval.HumanEval(Bubblewrap()).grade([(FIRST, f"```python\n{code}\n```")])
    assert (grade.score, why in grade.why) == (0.0, True), grade
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before


async def test_an_endless_solution_is_stopped() -> None:
    (grade,) = await human_eval.HumanEval(Bubblewrap(), seconds=1).grade([(FIRST, "    while True: pass\n")])
    assert grade.score == 0.0
    assert "ended before its tests did" in grade.why or "stopped after" in grade.why


@pytest.mark.parametrize("task", ["chain_sum", "countdown", "graph_color", "knights_knaves", "basic_arithmetic"])
async def test_a_task_finds_its_own_solution_right_and_another_answer_wrong(task: str) -> None:
    pack = reasoning.ReasoningGym(task, seed=2, items=4, sandbox=Bubblewrap())
    known = [(str(number), solution) for number in range(4) if (solution := pack.solution(str(number)))]
    grades = await pack.grade([*known, *((str(number), "<answer>zzz</answer>") for number in range(4))])
    assert [grade.is_right for grade in grades] == [True] * len(known) + [False] * 4
    assert len(known) == (0 if task == "graph_color" else 4)


async def test_an_answer_that_runs_in_its_scorer_harms_only_itself() -> None:
    """countdown's scorer evaluates the answer as an expression: that happens in the sandbox, and is found out."""
    pack = reasoning.ReasoningGym("countdown", seed=1, items=3, sandbox=Bubblewrap())
    grades = await pack.grade(
        [("0", "<answer>__import__('os')._exit(0)</answer>"), ("1", pack.solution("1")), ("2", "no tags")]
    )
    assert [grade.score for grade in grades] == [0.0, 1.0, 0.0]
    assert grades[0].why == "its scorer did not come to an end"
