"""A model server of known delays in a process of its own: `python -m bench.delays`. It answers over plain asyncio, so
that its own work is small, and tells at `/diary` when each request arrived and when each token left.

Request N (in order of arrival) waits by a log-normal law drawn with `--seed` and N; `--stall FROM TO` stops all answers
between these seconds after the first request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.request import urlopen

FIRST_S, GAP_S = 0.060, 0.008
SPREAD = (0.3, 0.2)
"""Standard deviations of the logarithms of both."""


@dataclass(frozen=True, slots=True)
class Law:
    """How long request N waits: until its first token, and between two."""

    seed: int
    scale: float

    def of(self, number: int) -> tuple[float, float]:
        """Seconds."""
        chance = random.Random(f"{self.seed}/{number}")
        first, gap = (chance.lognormvariate(0, deviation) for deviation in SPREAD)
        return self.scale * FIRST_S * first, self.scale * GAP_S * gap


@dataclass(slots=True)
class Delays:
    """The server."""

    law: Law
    tokens: int
    stall: tuple[float, float] = (0.0, 0.0)
    diary: list[tuple[float, list[float]]] = field(default_factory=list)
    _zero: float = 0.0

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request after the other until the client goes."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                if head.startswith(b"get"):
                    self._tell(writer)
                    continue
                length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
                await reader.readexactly(length)
                await self._answer(writer)
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        arrived, sent = time.monotonic(), list[float]()
        self._zero = self._zero or arrived
        first, gap = self.law.of(len(self.diary))
        self.diary.append((arrived, sent))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        due = arrived + first
        for _ in range(self.tokens):
            await self._until(due)
            sent.append(time.monotonic())
            writer.write(_TOKEN)
            due = max(due, sent[-1] - 0.001) + gap
        writer.write(_ending(self.tokens))
        await writer.drain()

    async def _until(self, due: float) -> None:
        while True:
            start, end = (self._zero + second for second in self.stall)
            wanted = end if start <= max(due, time.monotonic()) < end else due
            if (left := wanted - time.monotonic()) <= 0:
                return
            await asyncio.sleep(left)

    def _tell(self, writer: asyncio.StreamWriter) -> None:
        body = json.dumps(self.diary).encode()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


@dataclass(frozen=True, slots=True)
class Running:
    """The server as its parent sees it."""

    url: str

    def diary(self) -> list[tuple[float, list[float]]]:
        """(arrived, when each token left) of every request, in seconds of the machine's monotonic clock."""
        with urlopen(f"{self.url}/diary") as answer:
            return [(arrived, sent) for arrived, sent in json.load(answer)]


@contextlib.contextmanager
def running(
    *, scale: float = 1.0, tokens: int = 16, seed: int = 1, stall: tuple[float, float] = (0, 0)
) -> Iterator[Running]:
    """The server in a process of its own."""
    options = ["--scale", scale, "--tokens", tokens, "--seed", seed, "--stall", *stall]
    process = subprocess.Popen([sys.executable, "-m", "bench.delays", *map(str, options)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield Running(f"http://127.0.0.1:{int(process.stdout.readline())}")
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


def _framed(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _event(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


_TOKEN = _framed(_event({"model": "delays", "choices": [{"index": 0, "delta": {"content": "x"}}]}))


def _ending(tokens: int) -> bytes:
    done = _event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})
    usage = _event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}})
    return _framed(done + usage + b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def _serve(options: argparse.Namespace) -> None:
    delays = Delays(Law(options.seed, options.scale), options.tokens, tuple(options.stall))
    server = await asyncio.start_server(delays.connection, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(description="A model server of known delays.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--stall", type=float, nargs=2, default=(0.0, 0.0))
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
