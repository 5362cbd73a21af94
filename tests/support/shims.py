"""Containers under real shims, for tests of the process runtime."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from espalier_node.logs import Wish, show
from espalier_node.machine.base import Machine
from espalier_node.machine.linux import LinuxMachine
from espalier_node.process import START_S, ProcessRuntime
from espalier_node.runtime import ContainerConfig, Run

UID = "11111111-0000-4000-8000-000000000001"
USER = 64100
IS_ROOT = os.geteuid() == 0
EXPECTED_USER = USER if IS_ROOT else os.geteuid()


def make_runtime(
    state: Path, *, machine: Machine | None = None, log_max_bytes: int = 1 << 20, nice: int = 0,
    start_s: float = START_S,
) -> ProcessRuntime:  # fmt: skip
    """A runtime on this machine."""
    return ProcessRuntime(
        state, machine or LinuxMachine(state), readable=(), log_max_bytes=log_max_bytes, nice=nice, start_s=start_s
    )


@asynccontextmanager
async def living(state: Path) -> AsyncIterator[ProcessRuntime]:
    """A runtime none of whose containers outlives the test."""
    made = make_runtime(state)
    yield made
    for name in made.containers(UID):
        made.kill(UID, name)
        if made.runs(UID, name):
            await made.wait(UID, name)


def config(*command: str, name: str = "main", **fields: Any) -> ContainerConfig:
    """A container of one pod."""
    base: dict[str, Any] = {
        "pod_uid": UID, "hostname": "pod-a", "name": name, "attempt": 0, "streak": 0, "command": command,
        "environment": {"PATH": "/usr/bin:/bin", "SECRET": "hush"}, "working_directory": "/", "mounts": (),
        "user": USER, "group": USER, "groups": (), "hosts": (("127.77.1.9", "pod-a"),),
    }  # fmt: skip
    return ContainerConfig(**{**base, **fields})


async def ended(runtime: ProcessRuntime, *command: str, **fields: Any) -> tuple[Run, str]:
    """Run to the end: the run and what it said."""
    made = config(*command, **fields)
    await runtime.start(made)
    run = await runtime.wait(UID, made.name)
    return run, said(runtime, made.name)


def said(runtime: ProcessRuntime, name: str = "main") -> str:
    """What a container wrote."""
    path = runtime.log_path(UID, name)
    assert path is not None
    return b"".join(show(path, Wish())).decode()


def shims_of(state: Path) -> list[psutil.Process]:
    """The shims of a state directory that have left the process which started them."""
    return [
        process for process in psutil.process_iter(["cmdline", "ppid"])
        if (process.info["cmdline"] or ("",))[-1].startswith(f"{state}/") and process.info["ppid"] != os.getpid()
    ]  # fmt: skip
