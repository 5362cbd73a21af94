"""A worker whose executor writes down every execution: `python -m tests.support.chaos_worker`."""

from __future__ import annotations

import asyncio
import secrets
import sys
from pathlib import Path

from espalier_kit import logs
from espalier_kit.execution import Context, Result, Task, TaskSpec
from espalier_kit.lifecycle import run_program
from espalier_kit.settings import load
from espalier_worker.__main__ import serve
from espalier_worker.executors import GivenExecutors
from espalier_worker.settings import WorkerSettings

TYPE = "chaos.work"


async def work(task: Task, context: Context) -> Result:
    """Takes `seconds`, then ends with a number that no other execution has, and perhaps a child."""
    nonce = secrets.token_hex(8)
    await asyncio.sleep(task.payload["seconds"])
    _write_down(Path(task.payload["diary"]), f"{task.id} {task.attempt} {nonce}\n")
    child = {**task.payload, "children": 0}
    children = (TaskSpec(f"{task.key}/child", TYPE, child),) if task.payload["children"] else ()
    return Result(value={"nonce": nonce}, tallies={"ended": 1.0}, children=children)


def _write_down(diary: Path, line: str) -> None:
    with diary.open("a") as file:
        file.write(line)


if __name__ == "__main__":
    logs.configure()
    executors = GivenExecutors({TYPE: work})
    sys.exit(run_program(lambda stop: serve(load(WorkerSettings, "worker"), executors, stop)))
