"""Streams into pods: outputs that somebody else holds open, and connections that do not wait for each other."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import WSMessage, WSMsgType

from espalier_node.streaming import channels, commands, portforward
from espalier_node.streaming.portforward import Backlog, Forwarding
from espalier_node.streaming.spdy import DICTIONARY, Data, Reader, Writer
from tests.unit.node.test_spdy import Peer

DEADLINE_S = 20.0


class Socket:
    """A WebSocket's server side: what the test sends comes out of it, what is sent into it is kept."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.has_sent = asyncio.Event()
        self._coming: asyncio.Queue[bytes | None] = asyncio.Queue()

    def bring(self, *messages: bytes | None) -> None:
        for message in messages:
            self._coming.put_nowait(message)

    def __aiter__(self) -> AsyncIterator[WSMessage]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[WSMessage]:
        while (message := await self._coming.get()) is not None:
            yield WSMessage(WSMsgType.BINARY, message, "")

    async def send_bytes(self, data: bytes) -> None:
        self.sent.append(data)
        self.has_sent.set()

    async def close(self, **_: Any) -> None:
        self.bring(None)

    def of(self, channel: int) -> bytes:
        return b"".join(data[1:] for data in self.sent if data[0] == channel)


# ---------------------------------------------------------------- exec


async def run(script: str, *, is_tty: bool = False) -> tuple[Socket, dict[str, Any]]:
    """A command to its end, and the Status that was told."""
    socket = Socket()
    command = await commands.start(lambda _: ("sh", "-c", script), b"", has_stdin=False, is_tty=is_tty)
    async with asyncio.timeout(DEADLINE_S):
        await channels.serve_command(socket, command)  # type: ignore[arg-type]
    return socket, json.loads(socket.of(channels.ERROR))


@pytest.mark.parametrize("is_tty", [False, True])
async def test_what_is_left_in_the_background_is_not_waited_for(is_tty: bool) -> None:
    socket, status = await run("trap '' HUP; sleep 60 & echo done; exit 3", is_tty=is_tty)
    assert socket.of(channels.STDOUT).strip() == b"done"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]


async def test_nor_is_one_that_never_stops_talking() -> None:
    socket, status = await run("yes & echo done")
    assert b"done" in socket.of(channels.STDOUT)
    assert status["status"] == "Success"


async def test_all_that_the_command_itself_wrote_arrives() -> None:
    socket, _ = await run("head -c 3000000 /dev/zero; head -c 50000 /dev/zero >&2; sleep 60 &")
    assert (len(socket.of(channels.STDOUT)), len(socket.of(channels.STDERR))) == (3_000_000, 50_000)


# ---------------------------------------------------------------- port-forward


@asynccontextmanager
async def pod(*, reads: bool) -> AsyncIterator[int]:
    """A pod's port that answers in capitals, or takes a connection and reads nothing."""
    over, serving = asyncio.Event(), set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            serving.add(task)
        if not reads:
            await over.wait()
        while reads and (piece := await reader.read(1 << 16)):
            writer.write(piece.upper())
            await writer.drain()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        over.set()
        server.close()
        await asyncio.gather(*serving, return_exceptions=True)


class Client:
    """kubectl's side of one port-forward."""

    def __init__(self, socket: Socket) -> None:
        self._socket, self._peer, self._reader = socket, Peer(), Reader()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self.received: dict[int, bytes] = {}
        self._read = 0

    def connect(self, port: int, request: str, *, error: int, data: int) -> None:
        headers = {"port": str(port), "requestID": request}
        self._socket.bring(self._peer.opens(error, {"streamType": "error", **headers}, is_last=True),
                           self._peer.opens(data, {"streamType": "data", **headers}))

    def send(self, stream: int, piece: bytes, *, is_last: bool = False) -> None:
        self._socket.bring(Writer.data(stream, piece, is_last=is_last))

    async def until(self, stream: int, expected: bytes) -> None:
        while expected not in self.received.get(stream, b""):
            await self._socket.has_sent.wait()
            self._socket.has_sent.clear()
            for message in self._socket.sent[self._read:]:
                if not struct.unpack(">I", message[:4])[0] >> 31:
                    for frame in self._reader.feed(message):
                        assert isinstance(frame, Data)
                        self.received[frame.stream] = self.received.get(frame.stream, b"") + frame.payload
            self._read = len(self._socket.sent)


async def test_a_slow_pod_does_not_halt_the_other_connections() -> None:
    socket = Socket()
    client, piece = Client(socket), b"x" * 500_000
    async with asyncio.timeout(DEADLINE_S), pod(reads=False) as slow, pod(reads=True) as quick:
        forwarding = asyncio.create_task(Forwarding(socket, "127.0.0.1").run())  # type: ignore[arg-type]
        client.connect(slow, "0", error=1, data=3)
        client.connect(quick, "1", error=5, data=7)
        for _ in range(12):  # more than a pod's socket takes, less than the backlog
            client.send(3, piece)
        client.send(7, b"hello")
        await client.until(7, b"HELLO")
        socket.bring(None)
        await forwarding


async def test_one_that_takes_nothing_any_more_is_given_up_and_says_so() -> None:
    socket = Socket()
    client, piece = Client(socket), b"x" * 1_000_000
    async with asyncio.timeout(DEADLINE_S), pod(reads=False) as stuck, pod(reads=True) as quick:
        forwarding = asyncio.create_task(Forwarding(socket, "127.0.0.1").run())  # type: ignore[arg-type]
        client.connect(stuck, "0", error=1, data=3)
        client.connect(quick, "1", error=5, data=7)
        for _ in range(30):
            client.send(3, piece)
        client.send(7, b"hello")
        await client.until(1, b"the pod takes nothing from the connection to port %d any more" % stuck)
        await client.until(7, b"HELLO")
        socket.bring(None)
        await forwarding


async def test_a_pod_that_reads_slowly_gets_everything() -> None:
    backlog, taken = Backlog(most=10), bytearray()

    async def take() -> None:
        while (piece := await backlog.get()) is not None:
            taken.extend(piece)
            await asyncio.sleep(0)

    taking = asyncio.create_task(take())
    for number in range(100):
        backlog.put(bytes([number]) * 7)
        assert await backlog.has_room(portforward.STALL_S)
    backlog.put(None)
    await taking
    assert len(taken) == 700
