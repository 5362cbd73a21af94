"""What may hold a ready task back: a job's rate and width, a worker's resources, capacity kept for others. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from espalier_coordinator.model import Resources
from espalier_coordinator.reservations import HeldBack
from espalier_coordinator.scheduling import Demand, Lane


class Bucket:
    """A token bucket: `rate` per second, and as much at once as one second brings (at least one)."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._level = self._most = max(1.0, rate)
        self._at = now

    def room(self, now: float) -> int:
        """How many may go now; `now` is monotonic seconds."""
        self._level = min(self._most, self._level + (now - self._at) * self.rate)
        self._at = now
        return int(self._level)

    def take(self) -> None:
        """One went."""
        self._level -= 1.0

    def next_at(self) -> float:
        """Monotonic time at which the next one may go."""
        return self._at + max(0.0, 1.0 - self._level) / self.rate


def free_of(total: Resources, used: Iterable[Resources]) -> dict[str, float]:
    """What a worker has left of each resource."""
    free = dict(total)
    for resources in used:
        for name, amount in resources:
            free[name] = free.get(name, 0.0) - amount
    return free


@dataclass(slots=True)
class Round:
    """The `Rules` of one round of handing out; counts down while it is asked."""

    room: dict[str, int]
    """How many more tasks each limited job may have; no entry: any number."""
    free: Mapping[str, dict[str, float]]
    """Resources left on each worker that declared some."""
    held_back: HeldBack | None
    took_of: dict[str, int]
    """Tasks that each worker got in this round."""

    def is_open(self, lane: Lane) -> bool:
        return self.room.get(lane.job_uid, 1) > 0

    def allows(self, demand: Demand, lane: Lane) -> bool:
        if lane.resources:
            free = self.free.get(demand.worker, {})
            if any(free.get(name, 0.0) < amount for name, amount in lane.resources):
                return False
        return self.held_back is None or self.held_back.allows(demand.profile, lane)

    def took(self, demand: Demand, lane: Lane) -> None:
        if lane.job_uid in self.room:
            self.room[lane.job_uid] -= 1
        for name, amount in lane.resources:
            self.free[demand.worker][name] -= amount
        if self.held_back is not None:
            before = self.took_of.get(demand.worker, 0)
            self.took_of[demand.worker] = before + 1
            self.held_back.took(demand.profile, lane, is_slot=demand.held + before < demand.capacity)
