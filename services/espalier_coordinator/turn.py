"""Starting on PostgreSQL: wait for the server, and for our turn while another coordinator is active."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeVar

from espalier_coordinator.entrance import tls_of
from espalier_coordinator.serving import serving
from espalier_coordinator.settings import CoordinatorSettings
from espalier_coordinator.store.postgres import PostgresStore
from espalier_coordinator.store.seat import Seat
from espalier_coordinator.web import standby_app
from espalier_kit.clock import Clock
from espalier_kit.errors import Retryable
from espalier_kit.retry import Backoff

log = logging.getLogger(__name__)

DATABASE_WAIT_S = 60.0
"""A database that starts together with us is there by then."""
POLL_S = 1.0
"""How often a standby asks for the seat."""
_RETRY = Backoff(0.5, 5.0)

T = TypeVar("T")


@asynccontextmanager
async def on_postgres(
    settings: CoordinatorSettings, stop: asyncio.Event, clock: Clock
) -> AsyncIterator[tuple[PostgresStore, Seat] | None]:
    """The open store and the seat that goes with it, once it is our turn; None if stopped before."""
    url = settings.database.get_secret_value()
    with contextlib.closing(Seat(url)) as seat:
        if not await _take(seat, settings, stop, clock):
            yield None
            return
        with contextlib.closing(await patiently(lambda: PostgresStore(url), stop, clock)) as store:
            yield store, seat


async def patiently(attempt: Callable[[], T], stop: asyncio.Event, clock: Clock) -> T:
    """Try until the database answers; raises the last `Retryable` after `DATABASE_WAIT_S`, or when told to stop."""
    end = clock.monotonic() + DATABASE_WAIT_S
    rng = random.Random()
    for number in count(1):
        try:
            return await asyncio.to_thread(attempt)
        except Retryable as error:
            if stop.is_set() or clock.monotonic() >= end:
                raise Retryable(f"{error}; tried for {DATABASE_WAIT_S:.0f} s: is ESPALIER_COORDINATOR_DATABASE right "
                                "and the server up?", reason=error.reason) from error
            log.warning("database unavailable", extra={"error": str(error)})
            await clock.sleep(_RETRY.delay_s(number, rng))
    raise AssertionError("unreachable: it counts for ever")


async def _take(seat: Seat, settings: CoordinatorSettings, stop: asyncio.Event, clock: Clock) -> bool:
    """Wait as a standby, alive and not ready, until the seat is ours; False when told to stop before."""
    if await patiently(seat.try_take, stop, clock):
        return True
    log.info("standby: another coordinator is active")
    async with serving(standby_app(), host=settings.host, port=settings.http_port, tls=tls_of(settings)):
        while not stop.is_set():
            if await patiently(seat.try_take, stop, clock):
                log.info("taking over")
                return True
            await clock.sleep(POLL_S)
    return False
