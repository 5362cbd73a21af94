"""Runs one notebook's code cells in a fresh kernel and writes one JSON line per step; executed *inside* the sandbox.

It stands alone (nbclient, nbformat and the standard library), since nothing else of ours is in the sandbox. The request
is one JSON object on standard input; the lines go to what was standard output at start, which no kernel inherits.
The kernel speaks over Unix sockets in the private temporary directory: there is no network. Clocks start at the first
cell.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import shutil
import sys
import time
from typing import Any, TextIO

import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError

_PR_SET_DUMPABLE = 4
_OUTPUTS = ("stream", "display_data", "execute_result", "update_display_data")
_MESSAGE_CHARACTERS = 500
_INTERRUPT_SECONDS = 3
"""What an interrupted cell may take to end; then nothing else of the notebook runs."""


class BoundedClient(NotebookClient):  # type: ignore[misc]  # nbclient is untyped here
    """A client that keeps at most `output_bytes` of a cell's output and silently drops the rest."""

    output_bytes = 64 * 1024
    _seen = 0
    reply: dict[str, Any] | None = None

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in _OUTPUTS:
            self._seen += len(json.dumps(msg["content"], default=str))
            if self._seen > self.output_bytes:
                return None
        return super().process_message(msg, cell, cell_index)

    def start_cell(self) -> None:
        """Forget the last cell's output and reply."""
        self._seen, self.reply = 0, None

    def keep_reply(self, *, execute_reply: dict[str, Any], **_: Any) -> None:
        """Whether a cell passed is told by the kernel's reply, never by what it printed."""
        self.reply = execute_reply["content"]


def main() -> None:
    """Read the request, run it, write the lines."""
    request = json.load(sys.stdin)
    out = _private_output()
    _limit(request["limits"])
    _enter_folder(request["folder"], request["data"])
    try:
        asyncio.run(_run(request, out))
    except NoSuchKernel as error:
        _say(out, {"event": "failed", "reason": "KernelNotFound", "message": str(error)})
    except Exception as error:  # the worker decides what it means; before `started` it is ours
        _say(out, {"event": "failed", "reason": type(error).__name__, "message": str(error)[:_MESSAGE_CHARACTERS]})


def _private_output() -> TextIO:
    """The pipe to the worker, moved to a descriptor that children do not inherit; nobody of our uid may open it by
    /proc.
    """
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    private = os.dup(1)
    os.set_inheritable(private, False)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(null, 2)
    return os.fdopen(private, "w")


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        bound = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(number, (bound, bound))


def _enter_folder(folder: str, data: str | None) -> None:
    if data is not None:
        shutil.copytree(data, folder, dirs_exist_ok=True)
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)


async def _run(request: dict[str, Any], out: TextIO) -> None:
    cells = [nbformat.v4.new_code_cell(cell["source"]) for cell in request["cells"]]
    client = BoundedClient(
        nbformat.v4.new_notebook(cells=cells),
        kernel_name=request["kernel"],
        allow_errors=True,
        store_widget_state=False,
        startup_timeout=int(request["start_seconds"]),
        interrupt_on_timeout=True,
        resources={"metadata": {"path": request["folder"]}},
    )
    client.on_cell_executed = client.keep_reply
    client.output_bytes = request["output_bytes"]
    client.create_kernel_manager()
    client.km.transport = "ipc"
    client.km.ip = os.path.join(request["sockets"], "kernel")
    async with client.async_setup_kernel():
        _say(out, {"event": "started"})
        await _run_cells(client, request, out)
        _say(out, {"event": "finished"})


async def _run_cells(client: BoundedClient, request: dict[str, Any], out: TextIO) -> None:
    """One line for each cell; once the kernel or the time is gone, the rest ends for the same reason."""
    deadline = time.monotonic() + request["notebook_seconds"]
    gone = ""
    for index, asked in enumerate(request["cells"]):
        left = deadline - time.monotonic()
        if not gone and left <= 0:
            gone = "Timeout"
        if gone:
            _say(out, {"event": "cell", "key": asked["key"], "reason": gone, "message": "it did not run any more"})
            continue
        client.timeout = max(1, round(min(left, request["cell_seconds"])))
        gone = await _run_cell(client, index=index, key=asked["key"], out=out)


async def _run_cell(client: BoundedClient, *, index: int, key: str, out: TextIO) -> str:
    """Run one cell and say how it ended; returns why nothing can run after it, if so."""
    cell = client.nb.cells[index]
    began = time.monotonic()
    reason, message, gone = "", "", ""
    late = f"the cell ran longer than {client.timeout} s"
    client.start_cell()
    try:
        async with asyncio.timeout(client.timeout + _INTERRUPT_SECONDS):
            await client.async_execute_cell(cell, index)
        reason, message = _error(client.reply)
        if reason == "KeyboardInterrupt" and time.monotonic() - began >= client.timeout:
            reason, message = "Timeout", late
    except (TimeoutError, CellTimeoutError):
        reason, message, gone = "Timeout", late, "Timeout"
    except DeadKernelError:  # nbclient also says so when it is cut off in its wait
        reason, message = "KernelDied", "the kernel died: memory, or the code ended its own process"
        if time.monotonic() - began >= client.timeout:
            reason, message = "Timeout", late
        gone = reason
    said = {"reason": reason, "message": message, "output": _text(cell, client.output_bytes)}
    _say(out, {"event": "cell", "key": key, **said, "seconds": round(time.monotonic() - began, 3)})
    return gone


def _error(reply: dict[str, Any] | None) -> tuple[str, str]:
    if reply is None:
        return "NoReply", "the kernel did not say how the cell ended"
    if reply["status"] == "ok":
        return "", ""
    return str(reply.get("ename") or reply["status"])[:100], str(reply.get("evalue", ""))[:_MESSAGE_CHARACTERS]


def _text(cell: Any, limit: int) -> str:
    parts = [str(output.get("text") or output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
    return "".join(parts)[:limit]


def _say(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
