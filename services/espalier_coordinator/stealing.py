"""Work for idle workers out of what busy ones hold unstarted. No I/O.

Nothing is taken: the holder is asked (`Revoke`), and only what it hands back is granted again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from espalier_coordinator.messages import Lease
from espalier_coordinator.scheduling import Demand, Lane, may_run


@dataclass(frozen=True, slots=True)
class Waiting:
    """A lease that its holder has probably not started; `load` is how full the holder is."""

    holder: str
    lease: Lease
    lane: Lane
    load: float


def choose(
    idle: Sequence[Demand], waiting: Iterable[Waiting], allows: Callable[[Demand, Lane], bool], *, asked: int = 0
) -> list[Waiting]:
    """What to ask back, at most one for each free slot: from the fullest holders first.

    `asked` is how many were asked for a moment ago and have not been answered: slots that need no second question.
    """
    room = {demand.worker: min(demand.wants, demand.capacity - demand.held) for demand in idle}
    most = sum(room.values()) - asked
    chosen: list[Waiting] = []
    for candidate in sorted(waiting, key=lambda w: -w.load):
        for demand in idle:
            if len(chosen) >= most:
                return chosen
            if room[demand.worker] > 0 and may_run(demand.profile, candidate.lane) and allows(demand, candidate.lane):
                room[demand.worker] -= 1
                chosen.append(candidate)
                break
    return chosen
