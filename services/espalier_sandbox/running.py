"""One command of a request: started, fed, listened to, ended in time, and nothing of it left behind."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from espalier_sandbox import clearing, memory
from espalier_sandbox.watching import Watch
from espalier_sandbox.wire import CHUNK_BYTES, End, Run

_STDERR_BYTES = 4096


def run(request: Run, stdin: bytes, files: bytes, output: Callable[[bytes], None], *, worker: socket.socket) -> End:
    """Run to the end or the deadline; `output` gets the first `output_bytes` of standard output as they come.

    Before and afterwards there is no process in the container but this one, its first, and no file.
    """
    _bury_all()
    clearing.clear()
    try:
        _lay_out(Path(request.folder), files)
        with Watch(worker, most=request.processes, kill=_kill_all) as watch:
            end = _run(request, stdin, output)
        return replace(end, stderr=watch.why or end.stderr)
    except OSError as error:
        return End(code=1, stderr=f"the sandbox could not start the command: {error}")
    finally:
        _bury_all()
        clearing.clear()


def _kill_all() -> None:
    """Every process of the container but this one, which must be its first."""
    assert os.getpid() == 1, "elsewhere this would end the whole machine"
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)


def _run(
    request: Run, stdin: bytes, output: Callable[[bytes], None], kill_all: Callable[[], None] = _kill_all
) -> End:
    late, kills = threading.Event(), memory.kills()

    def out_of_time() -> None:
        late.set()
        kill_all()

    process = subprocess.Popen(
        request.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=request.environment, cwd=request.folder, start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    errors = bytearray()
    helpers = [
        threading.Thread(target=_feed, args=(process.stdin, stdin), daemon=True),
        threading.Thread(target=_keep, args=(process.stderr, errors), daemon=True),
        threading.Thread(target=_wait, args=(process, kill_all), daemon=True),
    ]
    timer = threading.Timer(request.seconds, out_of_time)
    timer.daemon = True
    for thread in (*helpers, timer):
        thread.start()
    with process.stdout, process.stderr:
        try:
            _listen(process.stdout, output, request.output_bytes)
        except OSError:  # whoever hears the output is gone
            kill_all()
            raise
        finally:  # neither timer nor helpers are there for the next command: they would end that
            timer.cancel()
            for thread in helpers:
                thread.join()
    return End(
        code=process.returncode,
        stderr=errors.decode(errors="replace"),
        is_timeout=late.is_set(),
        is_out_of_memory=memory.kills() > kills,
    )


def _bury_all() -> None:
    """Until no process is left, not even a dead one: those count too."""
    while True:
        _kill_all()
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _wait(process: subprocess.Popen[bytes], kill_all: Callable[[], None]) -> None:
    """What the command leaves running holds its pipes: it ends with it."""
    process.wait()
    kill_all()


def _listen(stdout: IO[bytes], output: Callable[[bytes], None], limit: int) -> None:
    while chunk := os.read(stdout.fileno(), CHUNK_BYTES):
        if kept := chunk[: max(0, limit)]:
            output(kept)
        limit -= len(chunk)


def _feed(pipe: IO[bytes], data: bytes) -> None:
    with contextlib.suppress(OSError), pipe:
        pipe.write(data)


def _keep(pipe: IO[bytes], kept: bytearray) -> None:
    while chunk := os.read(pipe.fileno(), CHUNK_BYTES):
        kept += chunk[: max(0, _STDERR_BYTES - len(kept))]


def _lay_out(folder: Path, files: bytes) -> None:
    """Files and folders below `folder`, nothing else that a tar can hold."""
    folder.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(files)) as tar:
        for entry in tar:
            path = folder / os.path.normpath(entry.name)
            if not path.is_relative_to(folder) or ".." in path.parts:
                raise OSError(f"{entry.name} lies outside the folder")
            if entry.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif (content := tar.extractfile(entry)) is not None:
                path.write_bytes(content.read())
