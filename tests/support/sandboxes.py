"""`espalier-sandbox` as the first process of a container: bubblewrap plays the container runtime."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from espalier_grading.sandbox import bwrap_command

CHECKOUT = Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def sandbox_process(
    folder: Path, *, runtime: str = "container", is_writable: bool = False, socket: str = ""
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The socket (a given one, or one of its own), and the process (as seen from outside). `is_writable`: its root, as
    no container's should be.
    """
    (folder / "data").mkdir(exist_ok=True)
    socket = socket or f"espalier-test-{secrets.token_hex(4)}"
    command = _container(folder, is_writable=is_writable)
    settings = {"ESPALIER_SANDBOX_SOCKET": socket, "ESPALIER_SANDBOX_RUNTIME": runtime}
    for name, value in settings.items():
        command[1:1] = ["--setenv", name, value]
    process = subprocess.Popen(
        [*command, sys.executable, "-m", "espalier_sandbox"], stderr=subprocess.PIPE, text=True, env={**os.environ}
    )
    try:
        yield socket, process
    finally:
        # With the container's first process the kernel ends all others; bubblewrap's own end would not reach it.
        if process.poll() is None:
            for child in psutil.Process(process.pid).children():
                child.kill()
        process.communicate(timeout=10)


def _container(folder: Path, *, is_writable: bool) -> list[str]:
    """The grading sandbox's own allow-list, without its filter; on our network, as a pod's containers share theirs."""
    made = bwrap_command(scratch=folder, readable=CHECKOUT, is_root=os.geteuid() == 0, filter_=0)
    at = made.index("--seccomp")
    del made[at : at + 2]
    for word in ("--clearenv", "--unshare-net"):
        made.remove(word)
    made.insert(1, "--as-pid-1")
    if is_writable:
        at = made.index("--remount-ro")
        del made[at : at + 2]
    return made


async def runs(container: subprocess.Popen[str]) -> psutil.Process:
    """The sandbox, once it runs a command."""
    outer = psutil.Process(container.pid)
    await eventually(lambda: any(child.children() for child in outer.children()), "running a command")
    (sandbox,) = outer.children()
    return sandbox


async def eventually(look: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait for something outside this process, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < deadline, f"not {what} after {timeout_s} s"
        await asyncio.sleep(0.05)
