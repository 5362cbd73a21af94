"""Health is tokens: progress counts, presence does not.

A dead generator behind a live web server looks healthy to every probe that only asks for a page. So each token and each
prefill chunk is a beat, and work without beats is a stall: the process says so and ends, its supervisor restarts it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_REMEMBERED_REQUESTS = 16


@dataclass(frozen=True, slots=True)
class Speed:
    """Decode speed of one finished request."""

    tokens: int
    seconds: float


class Pulse:
    """Written by the generation thread, read by the event loop; single values, so no lock is needed."""

    def __init__(self, now: float) -> None:
        self.last_beat = now
        self.is_busy = False
        self.generated_tokens = 0
        self._speeds: deque[Speed] = deque(maxlen=_REMEMBERED_REQUESTS)

    def beat(self, now: float, *, tokens: int = 0) -> None:
        """Progress: so many generated tokens, or (0) a prefill chunk."""
        self.last_beat = now
        self.generated_tokens += tokens

    def set_busy(self, is_busy: bool, now: float) -> None:
        """Whether anything should be happening; idle time is no stall, so the start of work is a beat."""
        if is_busy and not self.is_busy:
            self.last_beat = now
        self.is_busy = is_busy

    def record(self, speed: Speed) -> None:
        """Remember a finished request."""
        self._speeds.append(speed)

    def stalled_s(self, now: float) -> float:
        """Seconds that work has been waiting for a beat; 0 when idle."""
        return now - self.last_beat if self.is_busy else 0.0

    def tokens_per_second(self) -> float:
        """Decode speed of a request, over the last ones; 0 before the first."""
        speeds = tuple(self._speeds)
        seconds = sum(speed.seconds for speed in speeds)
        return sum(speed.tokens for speed in speeds) / seconds if seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, in seconds, nothing may happen: while generating, and while loading."""

    watchdog_s: float
    load_timeout_s: float


def fault(pulse: Pulse, *, state: str, message: str, age_s: float, now: float, patience: Patience) -> str:
    """Why this process is of no use, as a sentence; empty while it is. `age_s` is the process's own age."""
    if state == "dead":
        return f"the generation thread ended: {message}"
    if state == "loading":
        return f"still loading after {age_s:.0f} s" if age_s > patience.load_timeout_s else ""
    stalled_s = pulse.stalled_s(now)
    return f"work is waiting but no token came for {stalled_s:.0f} s" if stalled_s > patience.watchdog_s else ""
