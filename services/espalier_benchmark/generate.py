"""The load generator: sends each request when it is due, whatever became of those before, and watches its own lateness.

Requests wait for nothing but the clock and, if the run wants one, a limit of requests in flight; time spent at that
limit is in the response time and told apart (`held_s`) from the generator's own lag.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from espalier_benchmark.client import Exchange, Sender
from espalier_benchmark.items import Item, Items
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Arrival, Schedule
from espalier_benchmark.validity import Health
from espalier_kit.clock import Clock

PROBE_S = 0.02
"""How often the loop's lag is probed and requests are checked for their timeout."""
MAX_PROBES = 100_000


@dataclass(frozen=True, slots=True)
class Options:
    """How a generator behaves. `timeout_s` counts from the send; `drain_s` from the last due request."""

    timeout_s: float = 600.0
    drain_s: float = 60.0
    max_in_flight: int | None = None
    generator: int = 0
    block: int = 0
    clock_offset_s: float = 0.0
    start_at: datetime | None = None
    """Wall time of second 0, the same for all generators; None is now."""


class Stopwatch:
    """Seconds since the run's start, and CPU seconds of this thread; second 0 is set when the run begins."""

    def __init__(self, clock: Clock, *, cpu: Callable[[], float] = time.thread_time) -> None:
        self.clock = clock
        self.cpu = cpu
        self._zero = clock.monotonic()

    def start(self, *, after_s: float = 0.0) -> None:
        """Second 0 is `after_s` from now."""
        self._zero = self.clock.monotonic() + after_s

    def now(self) -> float:
        """Negative before the start."""
        return self.clock.monotonic() - self._zero

    async def until(self, at_s: float) -> None:
        """Sleep until then; return at once if it is past."""
        if (left := at_s - self.now()) > 0:
            await self.clock.sleep(left)


@dataclass(slots=True)
class _Flight:
    task: asyncio.Task[None] | None = None
    sent_s: float | None = None
    has_begun: bool = False
    why: str = ""
    """Set when this generator itself ends the request."""


class Generator:
    """One run of one schedule against one client. `write` gets every record as its request ends."""

    def __init__(
        self, client: Sender, watch: Stopwatch, *, items: Items, write: Callable[[Record], None], options: Options
    ) -> None:
        self._client, self._watch, self._items, self._write = client, watch, items, write
        self._options = options
        self._flights: dict[int, _Flight] = {}
        self._slots = asyncio.Semaphore(options.max_in_flight) if options.max_in_flight else None
        self._lags: list[float] = []
        self._sent = 0
        self._scheduled = 0
        self._give_up_s = math.inf
        self._is_over = False

    def finish(self) -> None:
        """Send nothing more; what is in flight is waited for."""
        self._is_over = True

    async def run(self, schedule: Schedule) -> Health:
        """Send it all, wait for the answers, say how it went. Cancelling it ends every request."""
        begun = self._watch.clock.now()
        wait_s = (self._options.start_at - begun).total_seconds() if self._options.start_at else 0.0
        self._watch.start(after_s=wait_s + self._options.clock_offset_s)
        await self._watch.until(0.0)
        used = self._watch.cpu()
        probe = asyncio.create_task(self._probe())
        try:
            await (self._open(schedule) if schedule.users is None else self._closed(schedule, schedule.users))
        finally:
            await _cancelled([probe, *self._tasks()])
        wall = max(self._watch.now(), 1e-9)
        return Health(
            scheduled=self._scheduled,
            sent=self._sent,
            wall_s=wall,
            loop_lags_s=tuple(self._lags),
            cpu_share=(self._watch.cpu() - used) / wall,
            generator=self._options.generator,
            clock_offset_s=self._options.clock_offset_s,
            started_at=begun.timestamp() + wait_s,
        )

    async def _open(self, schedule: Schedule) -> None:
        for arrival in schedule.arrivals:
            item = self._items(arrival)  # made before it is due
            await self._watch.until(arrival.at_s)
            if self._is_over:
                break
            self._launch(arrival, item)
        last = schedule.arrivals[-1].at_s if schedule.arrivals else 0.0
        self._give_up_s = last + self._options.drain_s
        await asyncio.gather(*self._tasks())

    async def _closed(self, schedule: Schedule, users: int) -> None:
        numbers, end = schedule.numbers(), schedule.bounds.duration_s or math.inf
        self._give_up_s = end + self._options.drain_s
        loops = [asyncio.create_task(self._user(numbers, end)) for _ in range(users)]
        try:
            await asyncio.gather(*loops)
        finally:
            await _cancelled(loops)

    async def _user(self, numbers: Iterator[int], end_s: float) -> None:
        while not self._is_over and (now := self._watch.now()) < end_s and (number := next(numbers, None)) is not None:
            arrival = Arrival(number, now)
            await self._launch(arrival, self._items(arrival))

    def _launch(self, arrival: Arrival, item: Item) -> asyncio.Task[None]:
        self._scheduled += 1
        flight = self._flights[arrival.index] = _Flight()
        flight.task = asyncio.create_task(self._one(arrival, item, flight))
        flight.task.add_done_callback(lambda _: self._flights.pop(arrival.index))
        return flight.task

    async def _one(self, arrival: Arrival, item: Item, flight: _Flight) -> None:
        """One request from due to recorded. A cancel that this generator ordered is an outcome, any other goes on."""
        flight.has_begun = True
        exchange, held = Exchange(), 0.0
        try:
            if self._slots is None:
                await self._send(item, exchange, flight)
            else:
                waits_from = self._watch.now()
                async with self._slots:
                    held = self._watch.now() - waits_from
                    await self._send(item, exchange, flight)
        except asyncio.CancelledError:
            if not flight.why:
                raise
            if not exchange.answer.is_done:
                exchange.error = flight.why if flight.sent_s is not None else "not-sent"
        self._write(self._record(arrival, exchange, sent_s=flight.sent_s, held_s=held))

    async def _send(self, item: Item, exchange: Exchange, flight: _Flight) -> None:
        self._sent += 1
        flight.sent_s = self._watch.now()
        await self._client.ask(item, exchange)

    def _record(self, arrival: Arrival, exchange: Exchange, *, sent_s: float | None, held_s: float) -> Record:
        answer, now = exchange.answer, self._watch.now()
        chunks = answer.chunks()
        return Record(
            index=arrival.index,
            target=self._client.name,
            intended_s=arrival.at_s,
            sent_s=now if sent_s is None else sent_s,
            ended_s=now if exchange.error or exchange.last_s is None else exchange.last_s,
            held_s=now - arrival.at_s if sent_s is None else held_s,
            headers_s=exchange.headers_s,
            first_s=answer.first_s,
            first_content_s=answer.first_content_s,
            chunks=chunks,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=sum(tokens for _, tokens in chunks),
            token_source=answer.token_source,
            model=answer.model,
            finish=answer.finish,
            error=exchange.error,
            detail=exchange.detail,
            stage=arrival.stage,
            generator=self._options.generator,
            block=self._options.block,
        )

    async def _probe(self) -> None:
        """Wakes up regularly: to see how late it is, and to end what waited too long."""
        while True:
            due = self._watch.now() + PROBE_S
            await self._watch.until(due)
            now = self._watch.now()
            if len(self._lags) < MAX_PROBES:
                self._lags.append(now - due)
            for flight in list(self._flights.values()):
                self._end_if_late(flight, now)

    def _end_if_late(self, flight: _Flight, now: float) -> None:
        if flight.task is None or flight.why or not flight.has_begun:
            return
        if flight.sent_s is not None and now > flight.sent_s + self._options.timeout_s:
            flight.why = "timeout"
        elif now > self._give_up_s:
            flight.why = "unfinished"
        if flight.why:
            flight.task.cancel()

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [flight.task for flight in self._flights.values() if flight.task is not None]


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
