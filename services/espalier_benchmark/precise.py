"""A clock whose sleeper wakes on time: epoll waits whole milliseconds, so that asyncio's own sleep ends up to one late.

Linux tells a deadline through a file descriptor (timerfd_create(2)) with the resolution of its clock. Elsewhere
asyncio's sleep has to do; the timeouts of macOS's kqueue are fine-grained anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import heapq
import os
import sys
from collections.abc import Iterator
from itertools import count

from espalier_kit.clock import Clock, SystemClock

_CLOCK_MONOTONIC = 1
_TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 0o4000, 0o2000000, 1


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerClock(SystemClock):
    """The system's clock with one timer descriptor, in the running event loop; set to the earliest sleeper's end."""

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor, self._loop = descriptor, loop
        self._library = ctypes.CDLL(None, use_errno=True)
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        loop.add_reader(descriptor, self._fired)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await super().sleep(seconds)
            return
        sleeper = (self.monotonic() + seconds, next(self._order), self._loop.create_future())
        heapq.heappush(self._sleepers, sleeper)
        if self._sleepers[0] is sleeper:
            self._set(sleeper[0])
        await sleeper[2]

    def close(self) -> None:
        """Give the descriptor back."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _fired(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)
        now = self.monotonic()
        while self._sleepers and (self._sleepers[0][0] <= now or self._sleepers[0][2].done()):
            future = heapq.heappop(self._sleepers)[2]
            if not future.done():
                future.set_result(None)
        if self._sleepers:
            self._set(self._sleepers[0][0])

    def _set(self, at: float) -> None:
        """To a time of the monotonic clock, which is time.monotonic's too on Linux."""
        whole, rest = divmod(max(1, round(at * 1e9)), 1_000_000_000)
        wanted = _Itimerspec(0, 0, whole, rest)
        if self._library.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, ctypes.byref(wanted), None):
            raise OSError(ctypes.get_errno(), "timerfd_settime")


@contextlib.contextmanager
def precise_clock() -> Iterator[Clock]:
    """For one run, inside its event loop."""
    if sys.platform != "linux":
        yield SystemClock()
        return
    descriptor = ctypes.CDLL(None, use_errno=True).timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "timerfd_create")
    clock = TimerClock(descriptor, asyncio.get_running_loop())
    try:
        yield clock
    finally:
        clock.close()
