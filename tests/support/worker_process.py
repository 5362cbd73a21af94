"""A worker process whose executors write down every attempt: `python -m tests.support.worker_process`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from espalier_kit import logs
from espalier_kit.execution import Context, Result, Task, TaskSpec
from espalier_kit.lifecycle import run_program
from espalier_kit.settings import load
from espalier_worker.__main__ import serve
from espalier_worker.executors import GivenExecutors
from espalier_worker.settings import WorkerSettings


async def parent(task: Task, context: Context) -> Result:
    """Takes `seconds`, then submits `children` with its own completion."""
    await _work(task)
    payload = {"diary": task.payload["diary"], "seconds": task.payload["seconds"]}
    children = tuple(
        TaskSpec(key=f"{task.key}/{n}", type="test.child", payload=payload) for n in range(task.payload["children"])
    )
    return Result(value={"key": task.key}, tallies={"ended": 1.0}, children=children)


async def child(task: Task, context: Context) -> Result:
    """Takes `seconds`; leaves an artifact."""
    await _work(task)
    return Result(value={"key": task.key}, tallies={"ended": 1.0})


async def store(task: Task, context: Context) -> Result:
    """Reads back from the artifact store what it wrote there."""
    digest = await context.artifacts.put(task.payload["text"].encode())
    return Result(value={"sha256": digest, "text": (await context.artifacts.get(digest)).decode()})


async def _work(task: Task) -> None:
    _write_down(Path(task.payload["diary"]), f"{task.key} {task.attempt} {os.getpid()}\n")
    await asyncio.sleep(task.payload["seconds"])


def _write_down(diary: Path, line: str) -> None:
    with diary.open("a") as file:
        file.write(line)


EXECUTORS = GivenExecutors({"test.parent": parent, "test.child": child, "test.store": store})

if __name__ == "__main__":
    logs.configure()
    sys.exit(run_program(lambda stop: serve(load(WorkerSettings, "worker"), EXECUTORS, stop)))
