"""Runs `confined.py` in a sandbox and reads what it says: the one way a model's text is ever executed."""

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

from espalier_grading.sandbox import Sandbox
from espalier_kit.execution import PlatformFault

_PROGRAM = Path(__file__).with_name("confined.py")
_OUTPUT_BYTES = 4 * 1024 * 1024
_START_SECONDS = 5.0
"""What the sandbox and the interpreter may take beside the program's own time, on a busy machine."""


@dataclass(frozen=True, slots=True)
class Confined:
    """Lines that the confined program said, and how it ended."""

    said: tuple[Mapping[str, Any], ...]
    is_timeout: bool
    code: int
    stderr: str


async def run(sandbox: Sandbox, request: Mapping[str, Any], *, seconds: float) -> Confined:
    """Raises `PlatformFault` where the sandbox itself does not start."""
    nonce = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="espalier-pack-") as folder:
        scratch = Path(folder)
        (scratch / "data").mkdir()
        os.chmod(scratch, 0o755)
        finished = await sandbox.run(
            [sys.executable, "-I", "-B", str(_PROGRAM)],
            stdin=json.dumps({**request, "nonce": nonce, "seconds": max(1, round(seconds))}).encode(),
            scratch=scratch,
            readable=_PROGRAM.parent,
            seconds=seconds + _START_SECONDS,
            output_bytes=_OUTPUT_BYTES,
        )
    said = tuple(_lines(finished.stdout, nonce))
    if not said and finished.stderr.startswith(("bwrap:", "setpriv:")):
        raise PlatformFault(f"the sandbox did not start: {finished.stderr.strip()[:300]}", reason="SandboxFailed")
    return Confined(said, finished.is_timeout, finished.code, finished.stderr)


def _lines(stdout: bytes, nonce: str) -> list[Mapping[str, Any]]:
    found = []
    for line in stdout.decode(errors="replace").splitlines():
        if line.startswith(nonce):
            found.append(json.loads(line[len(nonce) :]))
    return found
