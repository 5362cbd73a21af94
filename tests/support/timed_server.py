"""A model server whose delays are known to the microsecond: over virtual time, or over real HTTP with a diary of its
sends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from espalier_benchmark.transport import Reply
from espalier_kit.clock import Clock, ManualClock

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """One answer: `first_s` until the first token, then `gap_s` between tokens."""

    first_s: float
    gap_s: float
    tokens: int

    @property
    def total_s(self) -> float:
        """Until the last token."""
        return self.first_s + self.gap_s * (self.tokens - 1)


def spread(seed: int, *, tokens: int = 8, scale: float = 1.0) -> Callable[[int], Timing]:
    """Log-normal delays, the same for the same request: TTFT about 60 ms, gaps about 8 ms, times `scale`."""

    def timing(number: int) -> Timing:
        chance = random.Random(f"{seed}/{number}")
        first, gap = 0.06 * chance.lognormvariate(0, 0.3), 0.008 * chance.lognormvariate(0, 0.2)
        return Timing(scale * first, scale * gap, tokens)

    return timing


def token_event(text: str, **delta: str) -> bytes:
    """One chunk as OpenAI's servers send it."""
    return event({"model": "timed", "choices": [{"index": 0, "delta": delta or {"content": text}}]})


def event(content: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def ending(tokens: int) -> bytes:
    """The reason, the usage and the end."""
    return (
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
        + event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}})
        + b"data: [DONE]\n\n"
    )


@dataclass(slots=True)
class VirtualServer:
    """Answers in virtual time, exactly when it says. Nothing happens during `stall`, (from, to) of the clock."""

    clock: Clock
    timing: Callable[[int], Timing]
    stall: tuple[float, float] = (0.0, 0.0)
    asked: int = 0
    prompts: list[str] = field(default_factory=list)
    lingers_s: float = 0.0
    """How long the connection stays open after the answer's end."""
    busy: Callable[[], None] = lambda: None
    """Called at each request: what keeps the client's own processor busy."""

    @contextlib.asynccontextmanager
    async def post(self, body: bytes) -> AsyncIterator[Reply]:
        """As a `Transport`."""
        number, self.asked = self.asked, self.asked + 1
        self.prompts.append(json.loads(body)["messages"][0]["content"])
        self.busy()
        yield _Tokens(self, self.timing(number))

    async def close(self) -> None:
        """Nothing is open."""

    async def wait(self, seconds: float) -> None:
        """Sleep, and on to the end of the stall if that is where it ended."""
        await self.clock.sleep(seconds)
        start, end = self.stall
        if start <= self.clock.monotonic() < end:
            await self.clock.sleep(end - self.clock.monotonic())


@dataclass(slots=True)
class _Tokens:
    server: VirtualServer
    timing: Timing
    status: int = 200

    async def data(self) -> AsyncIterator[bytes]:
        for position in range(self.timing.tokens):
            await self.server.wait(self.timing.gap_s if position else self.timing.first_s)
            yield token_event("x")
        yield ending(self.timing.tokens)
        await self.server.clock.sleep(self.server.lingers_s)


async def virtually(clock: ManualClock, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, moving the clock whenever everything waits for it."""
    task = asyncio.create_task(work)
    while not task.done():
        await clock.advance(0.25)
    return await task


@dataclass(slots=True)
class TimedServer:
    """Real HTTP/1.1 on a loopback port. `diary` holds (arrived, when each token was sent) per request, monotonic."""

    timing: Callable[[int], Timing]
    api_key: str | None = None
    certificate: tuple[str, str] | None = None
    diary: list[tuple[float, list[float]]] = field(default_factory=list)
    connections: int = 0
    whole: Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]] = lambda path, body: (200, completion("hello"))
    """(path, body) of a request that wants no stream → status and answer; they are not in the diary."""
    whole_asked: list[dict[str, Any]] = field(default_factory=list)
    free: int = 1_000_000
    """So many whole answers are given at once; those after them wait for `go`, and the first one sets `holds`."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    holds: asyncio.Event = field(default_factory=asyncio.Event)
    _open: set[asyncio.Task[None]] = field(default_factory=set)

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Yields the base address."""
        trust = None
        if self.certificate is not None:
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            trust.load_cert_chain(*self.certificate)
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0, ssl=trust)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"{'https' if trust else 'http'}://127.0.0.1:{port}"
        finally:
            server.close()
            await asyncio.gather(*self._open)
            await server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self._open.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                if body.get("stream"):
                    await self._answer(head, writer)
                else:
                    await self._answer_whole(head.split()[1], body, writer)
        writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()

    async def _answer_whole(self, path: str, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.whole_asked.append(body)
        if len(self.whole_asked) > self.free and not self.go.is_set():
            self.holds.set()
            await self.go.wait()
        status, answer = self.whole(path, body)
        content = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        writer.write(head.encode() + content)

    async def _answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        arrived, sent = time.monotonic(), list[float]()
        if self.api_key is not None and f"authorization: bearer {self.api_key}" not in head:
            writer.write(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 9\r\n\r\nwrong key")
            return
        timing = self.timing(len(self.diary))
        self.diary.append((arrived, sent))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for position in range(timing.tokens):
            due = arrived + timing.first_s + position * timing.gap_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sent.append(time.monotonic())
            writer.write(_framed(token_event("x")))
        writer.write(_framed(ending(timing.tokens)) + b"0\r\n\r\n")
        await writer.drain()


def completion(text: str, *, prompt_tokens: int = 5, output_tokens: int = 3) -> dict[str, Any]:
    """A whole chat completion as OpenAI's servers send it."""
    return {
        "model": "timed",
        "system_fingerprint": "r1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": output_tokens},
    }


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"
