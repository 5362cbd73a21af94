"""Carries out what the engine wants: messages into sessions, writes to the disk, changes to watchers; and the clock.

Everything but the writer's own thread happens in the event loop, so the engine is never entered twice at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator

from espalier_coordinator.engine import Effects, Engine
from espalier_coordinator.messages import Message
from espalier_coordinator.store import TaskStore
from espalier_coordinator.store.writer import Writer
from espalier_kit.clock import Clock
from espalier_kit.errors import EspalierError

log = logging.getLogger(__name__)

LONGEST_TICK_S = 0.25
SHORTEST_TICK_S = 0.01


class Outbox:
    """Messages on their way to one session; whoever writes the stream takes all there is at once."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._messages: list[Message] = []
        self._wake = asyncio.Event()
        self._is_closed = False
        self._error: EspalierError | None = None

    def put(self, message: Message) -> None:
        self._messages.append(message)
        self._wake.set()

    def close(self, error: EspalierError | None = None) -> None:
        """No more messages come; what is here is still taken."""
        self._is_closed, self._error = True, self._error or error
        self._wake.set()

    async def take(self) -> list[Message]:
        """All waiting messages, at least one; none once it is closed. Raises the error it was closed with."""
        while not self._messages and not self._is_closed:
            self._wake.clear()
            await self._wake.wait()
        taken = self.take_now()
        if not taken and self._error:
            raise self._error
        return taken

    def take_now(self) -> list[Message]:
        """What is waiting, perhaps nothing."""
        taken, self._messages = self._messages, []
        return taken


class Watch:
    """Jobs that changed since a watcher last looked."""

    def __init__(self) -> None:
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()

    def add(self, uids: set[str]) -> None:
        self._changed.update(dict.fromkeys(uids))
        self._wake.set()

    async def take(self) -> list[str]:
        """The uids, each once; waits for the first."""
        await self._wake.wait()
        self._wake.clear()
        taken, self._changed = list(self._changed), {}
        return taken


class Host:
    """The engine's only caller. `run` it, then use `engine` through `do`."""

    def __init__(self, engine: Engine, store: TaskStore, clock: Clock) -> None:
        self.engine = engine
        self.writer = Writer(store, self._on_commit, self.fail_soon)
        self.failed = asyncio.Event()
        """Set by `fail`."""
        self.failure: Exception | None = None
        self.last_tick = clock.monotonic()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._outboxes: dict[int, Outbox] = {}
        self._numbers = itertools.count(1)
        self._watches: set[Watch] = set()
        self._waiting: dict[int, asyncio.Future[None]] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop`; then write what is queued."""
        self.writer.start()
        while not stop.is_set() and not self.failed.is_set():
            now = self._clock.monotonic()
            self.last_tick = now
            self.do(self.engine.tick())
            pause = min(max(self.engine.next_due() - now, SHORTEST_TICK_S), LONGEST_TICK_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause)
        for outbox in self._outboxes.values():
            outbox.close()
        await asyncio.to_thread(self.writer.stop, 3.0)

    def do(self, effects: Effects) -> asyncio.Future[None] | None:
        """Carry out; the future is done when what is to be written has taken effect, None where nothing is."""
        for session, message in effects.messages:
            if outbox := self._outboxes.get(session):
                outbox.put(message)
        if effects.commit:
            self.writer.submit(effects.commit.ticket, effects.commit.writes)
        if effects.changed:
            for watch in self._watches:
                watch.add(effects.changed)
        if not effects.commit:
            return None
        return self._waiting.setdefault(effects.commit.ticket, self._loop.create_future())

    async def settle(self, effects: Effects) -> None:
        """Carry out and wait until it is on disk."""
        if future := self.do(effects):
            await asyncio.shield(future)

    def fail(self, error: Exception) -> None:
        """The store or the engine broke: what is in memory cannot be trusted, what is on disk can. End the program."""
        log.error("broken", exc_info=None if isinstance(error, EspalierError) else error, extra={"error": str(error)})
        self.failure = self.failure or error
        self.failed.set()

    def open_session(self) -> Outbox:
        """A new stream."""
        outbox = Outbox(next(self._numbers))
        self._outboxes[outbox.number] = outbox
        return outbox

    def close_session(self, outbox: Outbox) -> None:
        """The stream ended."""
        del self._outboxes[outbox.number]
        self.do(self.engine.disconnect(outbox.number))

    @contextlib.asynccontextmanager
    async def watch(self) -> AsyncIterator[Watch]:
        """See changes from now on."""
        watch = Watch()
        self._watches.add(watch)
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def _on_commit(self, tickets: list[int]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to be told
            self._loop.call_soon_threadsafe(self._committed, tickets)

    def _committed(self, tickets: list[int]) -> None:
        try:
            self.do(self.engine.committed(tickets))
        except Exception as error:
            self.fail(error)
            return
        for ticket in tickets:
            if (future := self._waiting.pop(ticket, None)) and not future.done():
                future.set_result(None)

    def fail_soon(self, error: Exception) -> None:
        """`fail`, from another thread."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.fail, error)
