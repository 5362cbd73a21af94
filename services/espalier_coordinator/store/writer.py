"""One thread that writes: whatever is queued when the disk is free becomes one transaction (group commit)."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from espalier_coordinator.store import TaskStore, Write
from espalier_kit.errors import Retryable
from espalier_kit.retry import Backoff

log = logging.getLogger(__name__)

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
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self.pending_since: float | None = None
        """Monotonic time since which something waits to be written."""
        self.last_commit_s = 0.0
        """How long the last transaction took."""
        self.commits = 0

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

    def stop(self, timeout_s: float) -> None:
        """Write what is queued, then end the thread; gives up after `timeout_s` (what is unwritten was never acked)."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while group := self._next_group():
                self._write([write for _, writes in group for write in writes])
                self._on_commit([ticket for ticket, _ in group])
        except Exception as error:  # a broken database: the program must end and start again from what is on disk
            self._on_failure(error)

    def _next_group(self) -> list[tuple[int, Sequence[Write]]]:
        with self._wake:
            self.pending_since = time.monotonic() if self._queue else None
            while not self._queue and not self._stopping:
                self._wake.wait()
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
            self.last_commit_s = time.monotonic() - started
            self.commits += 1
            return
