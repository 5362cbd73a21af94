"""`kubectl port-forward`: connections to a pod's ports, each a pair of SPDY streams (data and error) in a WebSocket.

Protocol `portforward.k8s.io`: every forwarded connection opens an error stream and a data stream with one `requestID`
and the `port` in their headers; what goes wrong is a sentence on the error stream.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import WSCloseCode, WSMsgType, web

from espalier_kit.errors import Permanent
from espalier_node.streaming.spdy import Control, Data, Kind, Opened, Reader, Writer

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHUNK_BYTES = 32 * 1024
CONNECT_S = 5.0
BACKLOG_BYTES = 8 * 1024 * 1024
"""Waits for a pod that reads slowly before the client has to, and with it its other connections: the streams share one
socket, and their protocol has no way to hold up one alone."""
STALL_S = 5.0
"""A connection whose pod takes nothing for so long, with a full backlog, is given up: the others wait for it."""


class Backlog:
    """What a client has sent and the pod not taken yet; `None` ends it."""

    def __init__(self, most: int = BACKLOG_BYTES) -> None:
        self._most = most
        self._pieces: deque[bytes | None] = deque()
        self._held = self._taken = 0
        self._changed = asyncio.Event()
        self._is_closed = False

    def put(self, piece: bytes | None) -> None:
        """Take it, however much there is."""
        if not self._is_closed:
            self._pieces.append(piece)
            self._held += len(piece or b"")
            self._changed.set()

    async def get(self) -> bytes | None:
        """The next; waits for it."""
        while not self._pieces:
            self._changed.clear()
            await self._changed.wait()
        piece = self._pieces.popleft()
        self._held -= len(piece or b"")
        self._taken += 1
        self._changed.set()
        return piece

    def close(self) -> None:
        """Nobody takes any more."""
        self._is_closed, self._held = True, 0
        self._pieces.clear()
        self._changed.set()

    async def has_room(self, stall_s: float) -> bool:
        """Wait while there is too much; False where nothing was taken for `stall_s`."""
        while self._held > self._most:
            before = self._taken
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(stall_s):
                    await self._changed.wait()
            if self._taken == before and not self._is_closed:
                return False
        return True


@dataclass(slots=True)
class _Pair:
    """The two streams of one forwarded connection."""

    port: int = 0
    data: int = 0
    error: int = 0
    backlog: Backlog = field(default_factory=Backlog)
    connecting: asyncio.Task[None] | None = None


class Forwarding:
    """One `kubectl port-forward`: any number of connections, all ended with it."""

    def __init__(self, socket: web.WebSocketResponse, address: str) -> None:
        self._socket, self._address = socket, address
        self._reader, self._writer = Reader(), Writer()
        self._pairs: dict[str, _Pair] = {}
        self._by_data: dict[int, _Pair] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the client goes or says what is no port-forward."""
        try:
            async for message in self._socket:
                if message.type is not WSMsgType.BINARY:
                    break
                for frame in self._reader.feed(message.data):
                    await self._take(frame)
        except Permanent as error:
            await self._socket.close(code=WSCloseCode.PROTOCOL_ERROR, message=str(error).encode()[:120])
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, frame: Data | Control | Opened) -> None:
        match frame:
            case Opened():
                await self._open(frame)
            case Data(stream=stream) if pair := self._by_data.get(stream):
                if frame.payload:
                    pair.backlog.put(frame.payload)
                if frame.is_last:
                    pair.backlog.put(None)
                if not await pair.backlog.has_room(STALL_S):
                    await self._give_up(pair)
            case Control(kind=Kind.PING):
                await self._send(self._writer.ping(frame.payload))
            case Control(kind=Kind.RST_STREAM):
                if pair := self._by_data.get(int.from_bytes(frame.payload[:4], "big")):
                    pair.backlog.put(None)

    async def _open(self, opened: Opened) -> None:
        request, kind, port = _asked(opened.headers)
        await self._send(self._writer.reply(opened.stream))
        pair = self._pairs.setdefault(request, _Pair(port))
        setattr(pair, kind, opened.stream)
        if kind == "data":
            self._by_data[opened.stream] = pair
        if pair.data and pair.error:
            del self._pairs[request]
            pair.connecting = task = asyncio.create_task(self._connect(pair))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _give_up(self, pair: _Pair) -> None:
        if pair.connecting is not None:
            pair.connecting.cancel()
        await self._end(pair, f"the pod takes nothing from the connection to port {pair.port} any more")

    async def _connect(self, pair: _Pair) -> None:
        """Copy both ways until both are done; a sentence on the error stream if the pod does not answer."""
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(self._address, pair.port)
        except (OSError, TimeoutError) as error:
            words = f"nothing answers on port {pair.port} of the pod: {str(error) or 'no answer'}"
            await self._end(pair, words)
            return
        sending = asyncio.create_task(_feed(pair.backlog, writer))
        try:
            while piece := await reader.read(CHUNK_BYTES):
                await self._send(self._writer.data(pair.data, piece))
            await self._end(pair)
        except OSError as error:
            await self._end(pair, f"the connection to port {pair.port} broke: {error}")
        finally:
            sending.cancel()
            writer.transport.abort()  # what the pod does not take would keep it open

    async def _end(self, pair: _Pair, words: str = "") -> None:
        self._by_data.pop(pair.data, None)
        await self._send(self._writer.data(pair.error, words.encode(), is_last=True))
        await self._send(self._writer.data(pair.data, b"", is_last=True))
        pair.backlog.close()

    async def _send(self, frame: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(frame)


async def _feed(backlog: Backlog, writer: asyncio.StreamWriter) -> None:
    """What the client sends, to the pod; the client's end is told as an end of file."""
    with contextlib.suppress(OSError):
        while (piece := await backlog.get()) is not None:
            writer.write(piece)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def _asked(headers: Mapping[str, str]) -> tuple[str, str, int]:
    """Request id, `data` or `error`, and port of a stream; raises `Permanent`."""
    kind, port = headers.get("streamtype", ""), headers.get("port", "")
    if kind not in ("data", "error") or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Permanent(f"a forwarded stream names type {kind!r} and port {port!r}", reason="Protocol")
    return headers.get("requestid", port), kind, int(port)
