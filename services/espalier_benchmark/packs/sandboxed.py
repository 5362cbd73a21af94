"""Runs `confined.py` in a sandbox and reads what it says: the one way a model's text is ever executed.

The sandbox is grading's: bubblewrap beside this process, or the pod's other container, which runs one text after the
other, each in a place where nothing of the last one is left.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_api.benchmarktasks import AnswerSandbox
from espalier_grading.sandbox import Finished, Sandbox
from espalier_grading.sandboxes import sandbox
from espalier_kit.execution import PlatformFault

_PROGRAM = Path(__file__).with_name("confined.py")
_OUTPUT_BYTES = 4 * 1024 * 1024
_START_SECONDS = 15.0
"""What the sandbox and the interpreter may take beside the program's own time, on a busy machine."""
PROCESSES = 32
"""With threads; no answer needs more than one."""


@dataclass(frozen=True, slots=True)
class Confined:
    """Lines that the confined program said, and how it ended; `why`: what the sandbox says of that."""

    said: tuple[Mapping[str, Any], ...]
    is_timeout: bool
    code: int
    why: str


def sandbox_of(kind: AnswerSandbox) -> Sandbox:
    """What confines answers where that kind was asked for."""
    return sandbox(kind, most_processes=PROCESSES)


async def run(sandbox: Sandbox, request: Mapping[str, Any], *, seconds: float) -> Confined:
    """Raises `PlatformFault` where the sandbox itself does not start.

    A sandbox that ended with the program may have been stopped from outside, so the program is run once more; the
    second time it is the program's doing.
    """
    nonce = secrets.token_hex(16)
    finished = await _once(sandbox, request, nonce, seconds)
    if finished.is_lost:
        finished = await _once(sandbox, request, nonce, seconds)
    said = tuple(_lines(finished.stdout, nonce))
    if not said and finished.stderr.startswith(("bwrap:", "setpriv:")):
        raise PlatformFault(f"the sandbox did not start: {finished.stderr.strip()[:300]}", reason="SandboxFailed")
    return Confined(said, finished.is_timeout, finished.code, _why(finished))


async def _once(sandbox: Sandbox, request: Mapping[str, Any], nonce: str, seconds: float) -> Finished:
    limits = {"seconds": max(1, round(seconds)), "processes": sandbox.processes}
    with tempfile.TemporaryDirectory(prefix="espalier-pack-") as folder:
        scratch = Path(folder)
        (scratch / "data").mkdir()
        os.chmod(scratch, 0o755)
        return await sandbox.run(
            [sys.executable, "-I", "-B", str(_PROGRAM)],
            stdin=json.dumps({**request, **limits, "nonce": nonce}).encode(),
            scratch=scratch,
            readable=_PROGRAM.parent,
            seconds=seconds + _START_SECONDS,
            output_bytes=_OUTPUT_BYTES,
        )


def _why(finished: Finished) -> str:
    """What the sandbox says of its end."""
    return "the kernel ended a process of it, for memory" if finished.is_out_of_memory else finished.stderr.strip()


def _lines(stdout: bytes, nonce: str) -> list[Mapping[str, Any]]:
    found = []
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith(nonce):
            found.append(json.loads(line[len(nonce) :]))
    return found
