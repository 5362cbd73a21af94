"""Health by progress: is the loop on time, does the writer live, does what waits for the disk get there?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from espalier_coordinator.host import Host
from espalier_kit.clock import Clock

LAG_S = 5.0
STUCK_COMMIT_S = 60.0
"""Longer than any fsync; by then only a new process, or space on the volume, helps."""
SLOW_COMMIT_S = 10.0
"""Not ready for new work while the disk refuses what is there."""
_TICK_S = 0.5


@dataclass(frozen=True, slots=True)
class Facts:
    """What health is judged by; durations in seconds."""

    is_writer_alive: bool
    commit_age_s: float
    """How long the oldest write has waited; 0 without one."""
    loop_lag_s: float


def problems(facts: Facts) -> tuple[str, ...]:
    """Why the process should be restarted; none: it makes progress."""
    found = []
    if not facts.is_writer_alive:
        found.append("the writer thread has ended")
    if facts.commit_age_s > STUCK_COMMIT_S:
        found.append(f"a write has waited {facts.commit_age_s:.0f} s for the disk")
    if facts.loop_lag_s > LAG_S:
        found.append(f"the event loop is {facts.loop_lag_s:.1f} s late")
    return tuple(found)


def unready(facts: Facts) -> tuple[str, ...]:
    """Why it should get no new work; none: it takes it."""
    found = problems(facts)
    if facts.commit_age_s > SLOW_COMMIT_S:
        found += (f"a write has waited {facts.commit_age_s:.0f} s for the disk",)
    return found


class Health:
    """Gathers the facts; `run` measures the event loop."""

    def __init__(self, host: Host, clock: Clock) -> None:
        self._host = host
        self._clock = clock
        self._lag_s = 0.0

    async def run(self) -> None:
        """Measure for ever."""
        while True:
            before = self._clock.monotonic()
            await asyncio.sleep(_TICK_S)
            self._lag_s = max(0.0, self._clock.monotonic() - before - _TICK_S)

    def facts(self) -> Facts:
        """Now."""
        since = self._host.writer.pending_since
        age = 0.0 if since is None else time.monotonic() - since
        return Facts(self._host.writer.is_alive, age, self._lag_s)
