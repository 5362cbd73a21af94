"""Execute: run notebooks in the sandbox, each in a fresh kernel, and read what became of every cell."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from espalier_api.gradingjob import Execution
from espalier_grading import kernel
from espalier_grading.model import CellResult, NotebookResult, NotebookRun
from espalier_grading.sandbox import Finished, Sandbox
from espalier_kit.execution import EvaluatorFault, PlatformFault

START_SECONDS = 60
"""Patience for a kernel to start on a busy machine; a student's clock starts after it, at the first cell."""
GRACE_SECONDS = 15
"""From a notebook's own deadline to the sandbox's: the inner clocks should end it first and say at which cell."""
CELL_SHARE = 0.5
"""Share of a notebook's time that one cell may use, so that one endless loop leaves time for the tests after it."""
CELL_OUTPUT_BYTES = 64 * 1024
MAX_OUTPUT_BYTES = 16 * 1024 * 1024
_FILE_BYTES = 128 * 1024 * 1024
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18, "m": 10**-3}
_UNITS |= {f"{letter}i": 2 ** (10 * power) for power, letter in enumerate("kMGTPE", 1)} | {"Ki": 2**10}


async def run_notebook(
    sandbox: Sandbox, run: NotebookRun, *, data: Mapping[str, bytes], execution: Execution, is_last_try: bool = True
) -> NotebookResult:
    """Every cell's outcome. Raises `PlatformFault` when the sandbox or kernel did not start, or died without a word
    before the last try.
    """
    script = Path(kernel.__file__)
    with tempfile.TemporaryDirectory(prefix="espalier-run-") as name:
        scratch = Path(name)
        _lay_out(scratch, data)
        finished = await sandbox.run(
            [sys.executable, "-I", str(script)],
            stdin=json.dumps(request(run, scratch=scratch, execution=execution, processes=sandbox.processes)).encode(),
            scratch=scratch,
            readable=script,
            output_bytes=MAX_OUTPUT_BYTES,
            seconds=START_SECONDS + execution.kernel_timeout_seconds + GRACE_SECONDS,
        )
    return read_result(run, finished, is_last_try=is_last_try)


def request(run: NotebookRun, *, scratch: Path, execution: Execution, processes: int) -> dict[str, Any]:
    """What `kernel.py` reads. Pure."""
    seconds = execution.kernel_timeout_seconds
    return {
        "cells": [{"key": cell.key, "source": cell.source} for cell in run.cells],
        "kernel": run.kernel,
        "folder": f"{scratch}/work",
        "data": f"{scratch}/data",
        "sockets": str(scratch),
        "start_seconds": START_SECONDS,
        "notebook_seconds": seconds,
        "cell_seconds": max(1.0, seconds * CELL_SHARE),
        "output_bytes": CELL_OUTPUT_BYTES,
        "limits": {
            "RLIMIT_DATA": memory_bytes(execution.memory),
            "RLIMIT_CPU": 2 * seconds + START_SECONDS,
            "RLIMIT_NPROC": processes,
            "RLIMIT_FSIZE": _FILE_BYTES,
            "RLIMIT_CORE": 0,
        },
    }


def read_result(run: NotebookRun, finished: Finished, *, is_last_try: bool) -> NotebookResult:
    """The lines of `kernel.py` as a result; cells without a line did not run. Pure."""
    lines = [_line(text) for text in finished.stdout.decode(errors="replace").splitlines()]
    events = [line for line in lines if line]
    names = [event.get("event") for event in events]
    if "started" not in names:
        _raise_unstarted(events, finished, run)
    is_explained = "finished" in names or finished.is_timeout or finished.is_out_of_memory
    if not is_explained and not is_last_try:
        raise PlatformFault(f"the sandbox ended without a word (exit code {finished.code})", reason="SandboxFailed")
    told = {
        event["key"]: CellResult(**{k: _whole(v) for k, v in event.items() if k != "event"})
        for event in events
        if event.get("event") == "cell"
    }
    missing = "NotRun" if "finished" in names else "Timeout" if finished.is_timeout else "Killed"
    cells = tuple(told.get(c.key, CellResult(key=c.key, reason=missing)) for c in run.cells)
    if finished.is_out_of_memory:
        cells = tuple(_for_memory(cell) for cell in cells)
    return NotebookResult(notebook=run.notebook, cells=cells)


def _for_memory(cell: CellResult) -> CellResult:
    """The kernel of the machine, which ended a process of this run, knows better why the notebook's kernel died."""
    if cell.reason not in ("KernelDied", "Killed"):
        return cell
    said = "the submission wanted more memory than execution.memory allows"
    return cell.model_copy(update={"reason": "OutOfMemory", "message": said})


def memory_bytes(quantity: str) -> int:
    """Bytes of a Kubernetes quantity such as `1Gi`."""
    digits = quantity.rstrip("kKMGTPEim")
    return int(float(digits) * _UNITS[quantity[len(digits) :]])


def _lay_out(scratch: Path, data: Mapping[str, bytes]) -> None:
    for folder in ("data", "work", "home"):
        (scratch / folder).mkdir()
    for path, content in data.items():
        target = scratch / "data" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)


def _line(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _whole(value: Any) -> Any:
    """Text without half surrogate pairs: code can have its kernel say them, and no result could be stored with them."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _raise_unstarted(events: list[dict[str, Any]], finished: Finished, run: NotebookRun) -> None:
    failure = next((event for event in events if event.get("event") == "failed"), {})
    if failure.get("reason") == "KernelNotFound":
        raise EvaluatorFault(
            f"notebook {run.notebook}: kernel {run.kernel} is not installed where submissions run",
            reason="BundleRejected",
        )
    said = failure.get("message") or finished.stderr.strip()[-500:] or f"exit code {finished.code}"
    raise PlatformFault(f"no kernel started in the sandbox: {said}", reason="SandboxFailed")
