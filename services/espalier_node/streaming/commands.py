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
from dataclasses import dataclass

from espalier_node.streaming.channels import STDERR, STDOUT

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
"""Of the steps before the command, which gets its container's own with its payload."""


@dataclass(frozen=True, slots=True)
class Pipe:
    """Our end of what a command writes to."""

    reader: asyncio.StreamReader
    transport: asyncio.ReadTransport

    @classmethod
    async def of(cls, descriptor: int) -> Pipe:
        """Takes the descriptor over."""
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
        )
        return cls(reader, transport)


class ChildCommand:
    """`espalier_node.streaming.channels.Command` by a process group of this machine."""

    def __init__(
        self, process: asyncio.subprocess.Process, output: Mapping[int, Pipe],
        stdin: asyncio.WriteTransport | None = None, terminal: int | None = None,
    ) -> None:
        self._process, self._output, self._stdin, self._terminal = process, output, stdin, terminal

    def output(self) -> Mapping[int, asyncio.StreamReader]:
        return {channel: pipe.reader for channel, pipe in self._output.items()}

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
        for pipe in self._output.values():
            pipe.transport.close()  # what it left in the background may hold the other end for ever
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
        return await _on_pipes(words, file.fileno(), has_stdin=has_stdin)


async def _on_pipes(words: Sequence[str], payload: int, *, has_stdin: bool) -> ChildCommand:
    """Pipes of our own: asyncio's would wait for whoever else has them, and be closed by nobody else."""
    pipes = {channel: os.pipe() for channel in (STDOUT, STDERR)}
    stdin = asyncio.subprocess.PIPE if has_stdin else asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *words, env=ENVIRONMENT, stdin=stdin, stdout=pipes[STDOUT][1], stderr=pipes[STDERR][1],
            start_new_session=True, pass_fds=(payload,),
        )
    except BaseException:
        for ours, _ in pipes.values():
            os.close(ours)
        raise
    finally:
        for _, theirs in pipes.values():
            os.close(theirs)
    return ChildCommand(process, {channel: await Pipe.of(ours) for channel, (ours, _) in pipes.items()})


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
    writable = os.dup(ours)
    stdin, _ = await asyncio.get_running_loop().connect_write_pipe(asyncio.BaseProtocol, os.fdopen(writable, "wb", 0))
    return ChildCommand(process, {STDOUT: await Pipe.of(ours)}, stdin, writable)
