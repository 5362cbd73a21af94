"""A command as a child process, with pipes or a terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import shutil
import signal
import struct
import tempfile
import termios
from collections.abc import Callable, Mapping, Sequence

from espalier_node.streaming.channels import STDERR, STDOUT

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""Of the steps before the command, which gets its container's own with its payload."""


class ChildCommand:
    """`espalier_node.streaming.channels.Command` by a process group of this machine."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: Mapping[int, asyncio.StreamReader],
        stdin: asyncio.WriteTransport | None, terminal: int | None,
    ) -> None:
        self._process, self._output, self._stdin, self._terminal = process, output, stdin, terminal

    def output(self) -> Mapping[int, asyncio.StreamReader]:
        return self._output

    async def write(self, data: bytes) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(data)
                await self._process.stdin.drain()
        elif self._stdin is not None:
            self._stdin.write(data)

    def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        elif self._stdin is not None:
            self._stdin.write(b"\x04")  # a terminal's end of file is a character

    def resize(self, columns: int, rows: int) -> None:
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
        if self._stdin is not None:
            self._stdin.close()


async def start(
    line: Callable[[int], Sequence[str]], payload: bytes, *, has_stdin: bool, is_tty: bool
) -> ChildCommand:
    """Start what `line` says, given the descriptor on which it finds `payload` (a launcher takes it from there)."""
    with tempfile.TemporaryFile() as file:
        file.write(payload)
        file.seek(0)
        words = line(file.fileno())
        if is_tty:
            return await _on_terminal(words, file.fileno())
        stdin = asyncio.subprocess.PIPE if has_stdin else asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *words, env=ENVIRONMENT, stdin=stdin, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            start_new_session=True, pass_fds=(file.fileno(),),
        )
    assert process.stdout is not None
    assert process.stderr is not None
    return ChildCommand(process, {STDOUT: process.stdout, STDERR: process.stderr}, None, None)


async def _on_terminal(words: Sequence[str], payload: int) -> ChildCommand:
    """A terminal joins standard output and error. setsid(1) makes it the controlling one, for Ctrl-C and job control;
    without it (macOS) a command has a terminal that sends no signals."""
    ours, theirs = pty.openpty()
    setsid = shutil.which("setsid", path=ENVIRONMENT["PATH"])
    try:
        # setsid forks where it leads a group already, so it gets no session before.
        process = await asyncio.create_subprocess_exec(
            *((setsid, "--ctty") if setsid else ()), *words, env=ENVIRONMENT, stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=setsid is None, pass_fds=(payload,),
        )
    finally:
        os.close(theirs)
    loop = asyncio.get_running_loop()
    reader, writable = asyncio.StreamReader(), os.dup(ours)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb", 0))
    stdin, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writable, "wb", 0))
    return ChildCommand(process, {STDOUT: reader}, stdin, writable)
