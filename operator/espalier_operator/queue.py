"""The work queue: one entry per key, never two workers on one key, back-off per key, delays.

A key added while it is being worked on is worked on again afterwards; that is what makes level-based work safe.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass

from espalier_kit.clock import Clock, SystemClock
from espalier_kit.retry import Backoff


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What is to be reconciled. Cluster-wide kinds have an empty namespace."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


class WorkQueue:
    """Keys in order of arrival. All methods run on the event loop's thread; `add` never blocks."""

    def __init__(self, *, clock: Clock | None = None, backoff: Backoff | None = None, seed: int | None = None) -> None:
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff(first_s=0.5, longest_s=30.0)
        self._rng = random.Random(seed)
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._delayed: list[tuple[float, int, Key]] = []
        self._due: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._count = itertools.count()
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, key: Key) -> None:
        """Work on it soon."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = self._clock.monotonic()
            self._ready.append(key)
            self._changed.set()

    def add_after(self, key: Key, seconds: float) -> None:
        """Work on it in so many seconds; the earliest wish of a key counts."""
        due = self._clock.monotonic() + max(seconds, 0.0)
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._delayed, (due, next(self._count), key))
            self._changed.set()

    async def take(self) -> Key | None:
        """The next key, for which the caller must call `done`; None once the queue is closed."""
        while not self._closed:
            self._ripen()
            if self._ready:
                key = self._ready.popleft()
                del self._since[key]
                self._working.add(key)
                return key
            self._changed.clear()
            await self._wait()
        return None

    def close(self) -> None:
        """Let every taker go; what is not taken yet is left."""
        self._closed = True
        self._changed.set()

    def done(self, key: Key) -> None:
        """The work on it has ended, well or not."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def failed(self, key: Key) -> float:
        """Try it again after a growing delay; returns the delay in seconds."""
        self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay_s(self._failures[key], self._rng)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Forget its failures."""
        self._failures.pop(key, None)

    @property
    def depth(self) -> int:
        """Keys that are ready and wait."""
        return len(self._ready)

    @property
    def oldest_s(self) -> float:
        """How long the oldest ready key has waited."""
        return self._clock.monotonic() - min(self._since.values()) if self._since else 0.0

    def _ripen(self) -> None:
        now = self._clock.monotonic()
        while self._delayed and self._delayed[0][0] <= now:
            due, _, key = heapq.heappop(self._delayed)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)

    async def _wait(self) -> None:
        if not self._delayed:
            await self._changed.wait()
            return
        left = self._delayed[0][0] - self._clock.monotonic()
        sleeper = asyncio.ensure_future(self._clock.sleep(max(left, 0.0)))
        waiter = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({sleeper, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeper.cancel()
            waiter.cancel()
