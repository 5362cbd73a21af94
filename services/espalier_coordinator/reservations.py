"""Capacity that is held back: on workers with some tags, for a job or for tasks that require those tags. No I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from espalier_coordinator.scheduling import Lane, Profile
from espalier_kit.errors import Permanent


@dataclass(frozen=True, slots=True)
class Reservation:
    """`slots` on workers that have all of `tags`, until `until` (seconds since 1970).

    For job `job_uid`; where that is empty, for tasks of its namespace that require all of `tags`.
    """

    namespace: str
    name: str
    slots: int
    tags: frozenset[str] = frozenset()
    job_uid: str = ""
    until: float = 0.0

    def is_on(self, profile: Profile, pool: str) -> bool:
        """Whether a worker's slots count; `pool` is its job's: nobody else's workers are held back."""
        return (
            self.tags <= profile.tags and profile.pool == pool and profile.namespace in (None, self.namespace)
        )

    def is_for(self, lane: Lane) -> bool:
        """Whether these tasks may use what is held back."""
        if self.job_uid:
            return lane.job_uid == self.job_uid
        return lane.namespace == self.namespace and self.tags <= lane.tags


def check(reservation: Reservation, now: float) -> None:
    """Raise `Permanent` with a sentence."""
    if not reservation.name or not reservation.namespace:
        raise _invalid("a reservation needs a name and a namespace")
    if reservation.slots < 1:
        raise _invalid(f"reservation {reservation.name!r}: slots must be at least 1, got {reservation.slots}")
    if not reservation.job_uid and not reservation.tags:
        raise _invalid(f"reservation {reservation.name!r} is for nobody: give job_uid, or tags that tasks require")
    if not math.isfinite(reservation.until) or reservation.until <= now:
        raise _invalid(f"reservation {reservation.name!r} would be over at once: `until` is seconds since 1970 and "
                       "must lie in the future")


@dataclass(frozen=True, slots=True)
class Seat:
    """A connected worker: what it may run, how many slots it has free, and the lanes of what it holds."""

    profile: Profile
    free: int
    holds: tuple[Lane, ...]


class HeldBack:
    """Who may take a slot now, while tasks are handed out one by one."""

    def __init__(self, reservations: Iterable[tuple[Reservation, str]], seats: Iterable[Seat]) -> None:
        """Each reservation comes with the pool of its job; empty without one."""
        seats = tuple(seats)
        self._states = [_State.of(r, pool, seats) for r, pool in reservations]

    def allows(self, profile: Profile, lane: Lane) -> bool:
        """Whether a task of `lane` may go to such a worker without touching what is held for others."""
        return all(
            state.free > state.held for state in self._states
            if state.reservation.is_on(profile, state.pool) and not state.reservation.is_for(lane)
        )

    def took(self, profile: Profile, lane: Lane, *, is_slot: bool) -> None:
        """A task went there; `is_slot`: it will run at once, so a free slot is gone."""
        for state in self._states:
            if state.reservation.is_on(profile, state.pool):
                state.free -= is_slot
                if state.reservation.is_for(lane):
                    state.held = max(0, state.held - 1)


@dataclass(slots=True)
class _State:
    reservation: Reservation
    pool: str
    free: int
    held: int

    @classmethod
    def of(cls, reservation: Reservation, pool: str, seats: Sequence[Seat]) -> _State:
        mine = [seat for seat in seats if reservation.is_on(seat.profile, pool)]
        used = sum(reservation.is_for(lane) for seat in mine for lane in seat.holds)
        return cls(reservation, pool, sum(seat.free for seat in mine), max(0, reservation.slots - used))


def _invalid(message: str) -> Permanent:
    return Permanent(message, reason="InvalidReservation")
