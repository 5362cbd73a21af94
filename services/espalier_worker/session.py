"""One session with the coordinator, from Hello to its end. What to send is read off the worker's state, not queued."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from espalier_kit.clock import Clock, wait_or_stop
from espalier_kit.errors import Retryable
from espalier_rpc.v1 import coordinator_pb2 as pb

WELCOME_S = 15.0
"""A coordinator that accepts the stream but does not answer Hello for so long is given up."""
CLOSE_S = 5.0
"""How long the coordinator may take to end the stream after a drained worker said all it had."""


class Client(Protocol):
    """The coordinator, as a session sees it."""

    def session(self, messages: AsyncIterator[pb.WorkerMessage]) -> AsyncIterator[pb.CoordinatorMessage]:
        """The conversation; ends when the coordinator ends it."""
        ...

    async def close(self) -> None: ...


class Desk(Protocol):
    """The worker, as its session sees it."""

    def hello(self) -> pb.WorkerMessage:
        """The first message; starts a new session."""
        ...

    def due(self) -> tuple[pb.WorkerMessage, ...]:
        """What is to be said now, without the heartbeat."""
        ...

    def heartbeat(self) -> pb.WorkerMessage: ...

    def receive(self, message: pb.CoordinatorMessage) -> None:
        """Take a message; raises nothing."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether it is drained and owes nothing."""
        ...


class Session:
    """A stream, or what stands for one. `wake` is set by the worker whenever `due` may have something new;
    `heartbeat_s` 0 leaves that to the coordinator."""

    def __init__(self, desk: Desk, *, wake: asyncio.Event, clock: Clock, heartbeat_s: float = 0.0) -> None:
        self._desk = desk
        self._wake = wake
        self._clock = clock
        self._welcomed = asyncio.Event()
        self._said_all = asyncio.Event()
        self._own_heartbeat_s = heartbeat_s
        self._heartbeat_s = heartbeat_s or 5.0
        self._is_over = False

    async def run(self, client: Client) -> None:
        """Talk until the stream ends. Raises the errors of `espalier_kit.errors` when it breaks."""
        reading = asyncio.create_task(self._read(client), name="session")
        watching = asyncio.create_task(self._watch(), name="session deadlines")
        try:
            await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            else:
                watching.result()
        finally:
            self._is_over = True  # gRPC may keep the writer a while: it must take nothing from the next session
            self._wake.set()
            for task in (reading, watching):
                task.cancel()
            await asyncio.gather(reading, watching, return_exceptions=True)

    async def _read(self, client: Client) -> None:
        async for message in client.session(self._write()):
            if message.HasField("welcome"):
                self._heartbeat_s = self._interval(message.welcome.heartbeat_s)
                self._welcomed.set()
            self._desk.receive(message)
        if not self._desk.is_done:
            raise Retryable("the coordinator ended the session")

    def _interval(self, told_s: float) -> float:
        """Never more seldom than the coordinator wants: it takes a silent worker for lost."""
        return min(filter(None, (told_s, self._own_heartbeat_s)), default=self._heartbeat_s)

    async def _write(self) -> AsyncIterator[pb.WorkerMessage]:
        yield self._desk.hello()
        await self._welcomed.wait()
        next_beat = 0.0
        while not self._is_over:
            self._wake.clear()
            for message in self._desk.due():
                yield message
            if self._desk.is_done:
                self._said_all.set()
                return
            now = self._clock.monotonic()
            if now >= next_beat:
                next_beat = now + self._heartbeat_s
                yield self._desk.heartbeat()
            await wait_or_stop(self._wake, max(0.0, next_beat - self._clock.monotonic()))

    async def _watch(self) -> None:
        if not await wait_or_stop(self._welcomed, WELCOME_S):
            raise Retryable(f"the coordinator did not answer Hello within {WELCOME_S:g} s", reason="Deadline")
        await self._said_all.wait()
        await asyncio.sleep(CLOSE_S)
