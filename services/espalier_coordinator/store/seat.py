"""Of several coordinators on one PostgreSQL database one is active: the one whose session holds an advisory lock."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import psycopg

from espalier_coordinator.store import Deposed
from espalier_coordinator.store.postgres import AWAY, connect, unavailable
from espalier_coordinator.store.rows import Row
from espalier_kit.errors import Retryable

log = logging.getLogger(__name__)

_LOCK = 0x6573_7061_6C02
"""Advisory locks are counted per database, so that other installations on the same server do not meet."""

PING_S = 1.5
IDLE_SESSION_MS = 6_000
"""The server ends the session of a coordinator that is silent for so long (stopped, unreachable): the seat is free."""
PATIENCE_S = 10.0
"""A session of our own that the server has not yet missed holds the seat for less than this."""


class Seat:
    """Taken and kept on a connection of its own; a loss of it is told once, and the epoch fences what was on its way.

    `try_take` and `close` from one thread, before `keep` and after it.
    """

    def __init__(self, url: str, *, idle_session_ms: int = IDLE_SESSION_MS) -> None:
        self._url = url
        self._idle_session_ms = idle_session_ms
        self._connection: psycopg.Connection[Row] | None = None
        self._is_held = False
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None

    def try_take(self) -> bool:
        """True when it is ours, now or still. Raises `Retryable` when the server cannot be asked."""
        try:
            if self._connection is None:
                self._connection = connect(self._url, idle_session_timeout=self._idle_session_ms)
            if self._is_held:
                self._connection.execute("SELECT 1")
            else:
                row = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,)).fetchone()
                self._is_held = row == (True,)
        except AWAY as error:
            self._hang_up()
            raise unavailable(self._url, error) from error
        return self._is_held

    def keep(self, on_loss: Callable[[Exception], None]) -> None:
        """Hold it from a thread of its own, which no busy event loop delays; `on_loss` is called there, once."""
        self._keeper = threading.Thread(target=self._keep, args=(on_loss,), name="seat", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """Leave it to the next one."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join(PATIENCE_S)
        self._hang_up()

    def _keep(self, on_loss: Callable[[Exception], None]) -> None:
        until: float | None = None
        while not self._stopping.wait(PING_S):
            try:
                is_held = self.try_take()
            except Retryable as error:  # nobody can write now, this one neither
                log.warning("seat in doubt", extra={"error": str(error)})
                until = None
                continue
            if is_held:
                until = None
                continue
            until = until or time.monotonic() + PATIENCE_S
            if time.monotonic() >= until:
                on_loss(Deposed("it holds the database's advisory lock"))
                return

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection, self._is_held = None, False
