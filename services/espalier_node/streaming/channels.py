"""`kubectl exec` and `attach`: the WebSocket subprotocol v5.channel.k8s.io (KEP-4006).

Binary messages, the first byte names the channel. The client closes one with [255, channel], which tells the end of
standard input; we end with a metav1.Status on the error channel.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import WSMsgType, web

from espalier_kit.errors import Permanent

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
CHUNK_BYTES = 32 * 1024
SILENCE_S = 0.5
PIPE_BYTES = 512 * 1024
"""More than a pipe and its reader's buffer hold together."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asked for, by the query that the API server passes on."""

    command: tuple[str, ...]
    has_stdin: bool
    is_tty: bool


class Command(Protocol):
    """A command that runs inside a container."""

    def output(self) -> Mapping[int, asyncio.StreamReader]:
        """What it writes, by channel."""
        ...

    async def write(self, data: bytes) -> None:
        """To its standard input; nothing happens once it has ended."""
        ...

    def close_stdin(self) -> None:
        """It reads an end of file next."""
        ...

    def resize(self, columns: int, rows: int) -> None:
        """Of its terminal, if it has one."""
        ...

    async def wait(self) -> int:
        """Its exit code, the shell's."""
        ...

    async def kill(self) -> None:
        """End it and what it started."""
        ...


def wish_of(query: Mapping[str, str], command: tuple[str, ...]) -> Wish:
    """Raises `Permanent` when there is nothing to run."""
    if not command:
        raise Permanent("name a command to run, after --", reason="BadRequest")
    return Wish(command, has_stdin=is_set(query, "input"), is_tty=is_set(query, "tty"))


def is_set(query: Mapping[str, str], name: str) -> bool:
    """Whether the API server passes that flag on."""
    return query.get(name) in ("1", "true")


def success() -> dict[str, Any]:
    """The Status of a command that ended with 0."""
    return {"metadata": {}, "status": "Success"}


def exited(code: int) -> dict[str, Any]:
    """The Status of one that did not: kubectl ends with the same code."""
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failed(sentence: str) -> dict[str, Any]:
    """The Status of one that could not be run."""
    return {"metadata": {}, "status": "Failure", "reason": "InternalError", "message": sentence, "code": 500}


async def serve_command(socket: web.WebSocketResponse, command: Command) -> None:
    """Carry its streams until it ends; if the client goes first, so does the command."""
    await _send(socket, STDOUT, b"")  # says that we are there
    listening = asyncio.create_task(_listen(socket, command))
    copies = [_Copy(socket, channel, reader) for channel, reader in command.output().items()]
    copying = [asyncio.create_task(copy.run()) for copy in copies]
    ended = asyncio.create_task(command.wait())
    try:
        await asyncio.wait((listening, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await asyncio.gather(*(copy.rest(task) for copy, task in zip(copies, copying, strict=True)))
            await _send(socket, ERROR, json.dumps(exited(code) if (code := ended.result()) else success()).encode())
    finally:
        await command.kill()
        for task in (listening, ended, *copying):
            task.cancel()
        await asyncio.gather(listening, ended, *copying, return_exceptions=True)
        await socket.close()


async def serve_output(socket: web.WebSocketResponse, pieces: AsyncIterable[tuple[int, bytes]]) -> None:
    """Send what comes, by channel, until it ends or the client goes."""
    await _send(socket, STDOUT, b"")
    listening = asyncio.create_task(_drain(socket))
    sending = asyncio.create_task(_send_all(socket, pieces))
    await asyncio.wait((listening, sending), return_when=asyncio.FIRST_COMPLETED)
    if sending.done():
        await _send(socket, ERROR, json.dumps(success()).encode())
    for task in (listening, sending):
        task.cancel()
    await asyncio.gather(listening, sending, return_exceptions=True)
    await socket.close()


async def refuse(socket: web.WebSocketResponse, sentence: str) -> None:
    """Say why it cannot be done, where kubectl shows it."""
    await _send(socket, ERROR, json.dumps(failed(sentence)).encode())
    await socket.close()


async def _listen(socket: web.WebSocketResponse, command: Command) -> None:
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, data = message.data[0], message.data[1:]
        if channel == STDIN:
            await command.write(data)
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            command.close_stdin()
        elif channel == RESIZE:
            with contextlib.suppress(ValueError, KeyError, TypeError):
                size = json.loads(data)
                command.resize(int(size["Width"]), int(size["Height"]))


async def _drain(socket: web.WebSocketResponse) -> None:
    async for _ in socket:
        pass


class _Copy:
    """One of a command's outputs, to the client."""

    def __init__(self, socket: web.WebSocketResponse, channel: int, reader: asyncio.StreamReader) -> None:
        self._socket, self._channel, self._reader = socket, channel, reader
        self._sent = 0
        self._is_waiting = False

    async def run(self) -> None:
        """To its end."""
        with contextlib.suppress(OSError):  # a terminal whose last user has gone reads as an error, not as an end
            while piece := await self._read():
                await _send(self._socket, self._channel, piece)
                self._sent += len(piece)

    async def rest(self, running: asyncio.Task[None]) -> None:
        """What the command wrote before it ended. A process that it left in the background may hold the output open for
        ever: whatever comes after a silence, or after more than a pipe holds, is not the command's.
        """
        at_end = self._sent
        while not running.done() and self._sent - at_end <= PIPE_BYTES:
            before = self._sent
            await asyncio.wait((running,), timeout=SILENCE_S)
            if self._is_waiting and self._sent == before:
                return

    async def _read(self) -> bytes:
        self._is_waiting = True
        try:
            return await self._reader.read(CHUNK_BYTES)
        finally:
            self._is_waiting = False


async def _send_all(socket: web.WebSocketResponse, pieces: AsyncIterable[tuple[int, bytes]]) -> None:
    async for channel, piece in pieces:
        await _send(socket, channel, piece)


async def _send(socket: web.WebSocketResponse, channel: int, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        await socket.send_bytes(bytes([channel]) + data)
