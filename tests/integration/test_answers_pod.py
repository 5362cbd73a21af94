"""Answers in the container beside a generator: one after the other, and nothing of one is there for the next."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from espalier_benchmark.packs import human_eval, reasoning
from espalier_benchmark.packs.sandboxed import PROCESSES
from espalier_grading.sandbox_pod import Pod
from tests.support.answers import RIGHT, SPAWN, UNSEEN, answer
from tests.support.sandboxes import eventually, runs, sandbox_process

FIRST = "HumanEval/0"
HOSTILE = {
    "opens a socket": ("import socket\nsocket.socket()", "opened a socket"),
    "forks without end": ("import os\nwhile True: os.fork()", "started a process"),
    "starts processes behind Python's back": (f"{UNSEEN}\nwhile True: {SPAWN}", "more than 32 processes"),
    "holds threads": (
        "import threading, time\nthreading.stack_size(65536)\n"
        "for _ in range(60): threading.Thread(target=time.sleep, args=(99,)).start()\ntime.sleep(99)",
        "more than 32 processes",
    ),
    "fills memory": ("x = []\nwhile True: x.append(bytearray(10**8))", "MemoryError"),
    "fills the disk": (
        "import itertools\nfor i in itertools.count(): open(f'/tmp/{i}', 'wb').write(bytes(10**7))", "No space left",
    ),
    "stops the sandbox": ("import os, signal\nfor s in (15, 2, 9): os.kill(1, s)\nraise KeyError('alive')", "alive"),
    "stops everything": ("import os, signal\nos.kill(-1, signal.SIGKILL)", "No such process"),
    "leaves with success": ("import os\nos._exit(0)", "ended before its tests did"),
}  # fmt: skip


@pytest.fixture
async def pod(place: tuple[str, subprocess.Popen[str]]) -> AsyncIterator[Pod]:
    with closing(Pod(place[0], most=PROCESSES)) as made:
        yield made


async def graded(pod: Pod, *answers: str, seconds: float = 5.0) -> list[tuple[float, str]]:
    """(score, why) of each, in turn."""
    pack = human_eval.HumanEval(pod, seconds=seconds)
    found = []
    for text in answers:
        (grade,) = await pack.grade([(FIRST, text)])
        found.append((grade.score, grade.why))
    return found


async def test_the_data_sets_own_solutions_are_right(pod: Pod) -> None:
    pack = human_eval.HumanEval(pod)
    names = list(human_eval.problems())[::8]
    grades = await pack.grade([(name, pack.solution(name)) for name in names])
    assert [grade for grade in grades if not grade.is_right] == []


async def test_a_hostile_answer_is_stopped_and_the_next_one_is_right(
    pod: Pod, place: tuple[str, subprocess.Popen[str]]
) -> None:
    bad = {}
    for name, (body, why) in HOSTILE.items():
        (score, said), after = await graded(pod, answer(body), answer(RIGHT))
        if (score, after) != (0.0, (1.0, "")) or why not in said:
            bad[name] = (score, said, after)
    assert bad == {}
    (sandbox,) = psutil.Process(place[1].pid).children()
    assert sandbox.children(recursive=True) == []


LEAVES = (
    "import os",
    "if os.path.exists('/tmp/0'): " + RIGHT,
    "os.makedirs('/tmp/deep/er')",
    "os.chmod('/tmp/deep', 0)",
    "os.chdir('/tmp')",
    "for _ in range(2000): os.mkdir('d' * 100); os.chdir('d' * 100)",
    UNSEEN,
    SPAWN,
    "try:",
    "    for i in range(99): open(f'/tmp/{i}', 'wb').write(bytes(10**7))",
    "except OSError: pass",
)
FINDS = (
    "import os",
    "seen = [p for p in os.listdir('/proc') if p.isdecimal() and p not in ('1', str(os.getpid()))]",
    "seen += [n for n in os.listdir('/tmp') if n in ('deep', '0') or n.startswith('d')]",
    "open('/tmp/whole', 'wb').write(bytes(60 * 10**6))",
    "assert not seen, seen",
)


async def test_an_answer_finds_nothing_of_the_one_before_it(pod: Pod) -> None:
    first, second = await graded(pod, answer(*LEAVES, RIGHT), answer(*FINDS, RIGHT))
    assert first == (1.0, ""), "it did what it was asked, and more"
    assert second == (1.0, "")


async def test_no_command_can_take_the_sandboxes_place(
    pod: Pod, place: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Whoever listens under its name would be told the next answer's tests."""
    script = f"import socket\nsocket.socket(socket.AF_UNIX).bind(chr(0) + {place[0]!r})"
    (tmp_path / "scratch").mkdir()
    ended = await pod.run(
        [sys.executable, "-c", script], stdin=b"", scratch=tmp_path / "scratch", readable=tmp_path, seconds=10,
        output_bytes=0,
    )  # fmt: skip
    assert "Address already in use" in ended.stderr


async def test_a_sandbox_that_ends_from_outside_costs_no_answer(
    pod: Pod, place: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """As the kubelet does it: the container is stopped, and another one takes its place."""
    slow = answer("import time", "time.sleep(0.3)", RIGHT)
    running = asyncio.create_task(graded(pod, slow))
    (await runs(place[1])).kill()
    place[1].wait(10)
    again = tmp_path / "again"
    again.mkdir()
    with sandbox_process(again, socket=place[0]):
        assert await running == [(1.0, "")]
        pod.close()


async def test_a_worker_that_hangs_up_ends_what_runs_and_finds_an_empty_place_later(
    pod: Pod, place: tuple[str, subprocess.Popen[str]]
) -> None:
    leaves = "open('/tmp/left', 'w')"
    running = asyncio.create_task(graded(pod, answer(leaves, "import time", "time.sleep(60)"), seconds=60))
    sandbox = await runs(place[1])
    running.cancel()
    await eventually(lambda: not sandbox.children(), "ended")
    looks = answer("import os", "assert not os.path.exists('/tmp/left')", RIGHT)
    assert await graded(pod, looks) == [(1.0, "")]


async def test_an_answer_in_its_scorer_reaches_no_other_answer(pod: Pod) -> None:
    """countdown's scorer evaluates the answer: in a process of its own, where it can write nothing."""
    pack = reasoning.ReasoningGym("countdown", seed=1, items=4, sandbox=pod)
    patched = "[c for c in object.__subclasses__() if c.__name__ == 'ProceduralDataset'][0].__subclasses__()"
    hostile = [
        "__import__('os')._exit(0)",
        f"[setattr(c, 'score_answer', lambda *a, **k: 1.0) for c in {patched}] and 0",
        "open('/tmp/left', 'w').write('x')",
    ]
    answers = [*((str(n), f"<answer>{text}</answer>") for n, text in enumerate(hostile)), ("3", pack.solution("3"))]
    grades = await pack.grade([*answers, ("0", "<answer>1</answer>"), ("1", str(pack.solution("1")))])
    assert [grade.score >= 1 for grade in grades] == [False, False, False, True, False, True]
    assert grades[0].why == "its scorer did not come to an end"
