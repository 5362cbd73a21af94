"""How many may be inside: the batch plus a bounded queue; one more is answered 429 at once.

An unbounded queue only keeps requests whose clients have long given up; a refusal lets them go to another server.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from espalier_mlx.errors import too_busy

_SHORTEST_RETRY_S = 1
_LONGEST_RETRY_S = 60


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_concurrency` are decoded together, `queue_limit` more may wait."""

    max_concurrency: int
    queue_limit: int

    @property
    def places(self) -> int:
        """All requests that may be inside."""
        return self.max_concurrency + self.queue_limit


def retry_after_s(inside: int, limits: Limits, mean_service_s: float) -> int:
    """Whole seconds until a place is likely free: one batch slot frees every `mean / max_concurrency` seconds."""
    waiting = max(0, inside - limits.max_concurrency)
    expected = mean_service_s * (waiting + 1) / limits.max_concurrency
    return min(max(math.ceil(expected), _SHORTEST_RETRY_S), _LONGEST_RETRY_S)


class Gate:
    """Counts who is inside. Used by one thread only (the event loop)."""

    def __init__(self, limits: Limits, *, remembered: int = 32) -> None:
        self._limits = limits
        self._service_s: deque[float] = deque(maxlen=remembered)
        self.inside = 0

    def enter(self) -> None:
        """Take a place. Raises `ApiError` 429 with the seconds to wait."""
        if self.inside >= self._limits.places:
            raise too_busy(retry_after_s(self.inside, self._limits, self.mean_service_s))
        self.inside += 1

    def leave(self, service_s: float) -> None:
        """Give the place back after so many seconds."""
        self.inside -= 1
        self._service_s.append(service_s)

    @property
    def mean_service_s(self) -> float:
        """Mean of the last requests, 0 when there were none."""
        return sum(self._service_s) / len(self._service_s) if self._service_s else 0.0
