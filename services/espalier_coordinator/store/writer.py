"""One thread that writes: whatever is queued when the disk is free becomes one transaction (group commit)."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from espalier_coordinator.store import TaskStore, Write
from espalier_kit.errors import Retryable
from espalier_kit.retry import Backoff

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

MAX_GROUP = 5_000
"""Writes per transaction: bounds the latency of the first in the group."""

RETRY = Backoff(0.5, 5.0)
"""Pauses after the store refused; nothing is acknowledged meanwhile and nothing is dropped."""


class Writer:
    """Takes writes with a ticket; calls `on_commit(tickets)` from its thread once they are on disk, in order."""

    def __init__(self, store: TaskStore, on_commit: Callable[[list[int]], None], on_failure: Callable[[Exception], None]
                 ) -> None:
        self._store = store
        self._on_commit = on_commit
        self._on_failure = on_failure
        self._rng = random.Random()
        self._queue: deque[tuple[int, Sequence[Write]]] = deque()
        self._reads: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.pending_since: float | None = None
        """Monotonic time since which something waits to be written."""
        self.commits = 0
        self.took: Callable[[float], None] = lambda seconds: None
        """Told on this thread how long each transaction took."""

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, ticket: int, writes: Sequence[Write]) -> None:
        """Queue writes; they are committed together and after everything submitted earlier."""
        with self._wake:
            self._queue.append((ticket, writes))
            if self.pending_since is None:
                self.pending_since = time.monotonic()
            self._wake.notify()

    def read(self, query: Callable[[TaskStore], Answer]) -> Future[Answer]:
        """Ask the store, on the writer's thread and between its transactions; sees all that was committed before.

        Raises in the future what the store raises, and `Retryable` once the writer stops.
        """
        future: Future[Answer] = Future()

        def ask() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(query(self._store))
            except Exception as error:  # whoever asked hears of it; writing goes on
                future.set_exception(error)

        with self._wake:
            if self._stopping:
                future.set_exception(Retryable("the coordinator is stopping", reason="Stopping"))
            else:
                self._reads.append(ask)
                self._wake.notify()
        return future

    def stop(self, timeout_s: float) -> None:
        """Write what is queued, then end the thread; gives up after `timeout_s` (what is unwritten was never acked)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while self._has_work():
                self._answer()
                if group := self._next_group():
                    self._write([write for _, writes in group for write in writes])
                    self._on_commit([ticket for ticket, _ in group])
        except Exception as error:  # a broken database: the program must end and start again from what is on disk
            self._on_failure(error)
        finally:
            with self._wake:
                self._stopping = True
            self._answer()

    def _has_work(self) -> bool:
        """Wait for some; False once there is none left and none will come."""
        with self._wake:
            self.pending_since = time.monotonic() if self._queue else None
            while not (self._queue or self._reads or self._stopping):
                self._wake.wait()
            return bool(self._queue or self._reads)

    def _answer(self) -> None:
        while self._reads:
            self._reads.popleft()()

    def _next_group(self) -> list[tuple[int, Sequence[Write]]]:
        with self._wake:
            group, size = [], 0
            while self._queue and size < MAX_GROUP:
                group.append(self._queue.popleft())
                size += len(group[-1][1])
            return group

    def _write(self, writes: list[Write]) -> None:
        for attempt in itertools.count(1):
            started = time.monotonic()
            try:
                self._store.commit(writes)
            except Retryable as error:
                log.error("commit refused", extra={"error": str(error), "writes": len(writes)})
                if self._stopping:
                    raise
                time.sleep(RETRY.delay_s(attempt, self._rng))
                continue
            self.took(time.monotonic() - started)
            self.commits += 1
            return
