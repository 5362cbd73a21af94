"""Capacity that is held back: on workers with some tags, for a job or for tasks that require those tags. No I/O."""

from __future__ import annotations

import math
from collections import Counter
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


def check_share(
    reservation: Reservation, others: Iterable[Reservation], seats: Iterable[Seat], *, share: float
) -> None:
    """Raise `Permanent` where its namespace would hold back more than its own workers and its share of everybody's.

    Where nobody's workers are connected there is nothing to compare with; `HeldBack` keeps to the share in any case.
    """
    namespace = reservation.namespace
    seats = tuple(seats)
    own = sum(seat.capacity for seat in seats if seat.profile.namespace == namespace)
    everybodys = sum(seat.capacity for seat in seats if is_everybodys(seat.profile))
    wanted = reservation.slots + sum(
        r.slots for r in others if r.namespace == namespace and r.name != reservation.name
    )
    if everybodys and wanted > own + int(share * everybodys):
        raise _invalid(
            f"reservation {reservation.name!r}: namespace {namespace} would hold back {wanted} slots; it may have "
            f"{own + int(share * everybodys)}: {share:.0%} of the {everybodys} on workers that serve every namespace, "
            f"and {own} on workers of its own"
        )


def is_everybodys(profile: Profile) -> bool:
    """Whether a worker serves every namespace, and is in no pool."""
    return profile.namespace is None and not profile.pool


@dataclass(frozen=True, slots=True)
class Seat:
    """A connected worker: what it may run, its slots, how many are free, and the lanes of what it holds."""

    profile: Profile
    capacity: int
    free: int
    holds: tuple[Lane, ...]


class HeldBack:
    """Who may take a slot now, while tasks are handed out one by one."""

    def __init__(
        self, reservations: Iterable[tuple[Reservation, str]], seats: Iterable[Seat], *, share: float = 1.0
    ) -> None:
        """Each reservation comes with the pool of its job; empty without one. Of the slots on workers that serve every
        namespace, the reservations of one take `share` at most, those in use included.
        """
        seats, known = tuple(seats), tuple(reservations)
        left = _shares(known, seats, share)
        self._states = []
        for reservation, pool in known:
            state = _State.of(reservation, pool, seats, left[reservation.namespace])
            left[reservation.namespace] -= state.borrowed
            self._states.append(state)

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
    borrowed: int
    """Of the held ones, so many are on workers that serve every namespace."""

    @classmethod
    def of(cls, reservation: Reservation, pool: str, seats: Sequence[Seat], most_borrowed: int) -> _State:
        mine = [seat for seat in seats if reservation.is_on(seat.profile, pool)]
        free = sum(seat.free for seat in mine)
        own = sum(seat.free for seat in mine if not is_everybodys(seat.profile))
        held = max(0, reservation.slots - _used(reservation, mine))
        if own == free:
            return cls(reservation, pool, free, held, 0)
        borrowed = max(0, min(held - own, most_borrowed))
        return cls(reservation, pool, free, min(held, own + borrowed), borrowed)


def _shares(
    reservations: Iterable[tuple[Reservation, str]], seats: Sequence[Seat], share: float
) -> Counter[str]:
    """How many more slots of everybody's workers the reservations of each namespace may keep."""
    everybodys = [seat for seat in seats if is_everybodys(seat.profile)]
    most = int(share * sum(seat.capacity for seat in everybodys))
    left: Counter[str] = Counter()
    for reservation, pool in reservations:
        left.setdefault(reservation.namespace, most)
        left[reservation.namespace] -= _used(reservation, [s for s in everybodys if reservation.is_on(s.profile, pool)])
    return left


def _used(reservation: Reservation, seats: Iterable[Seat]) -> int:
    return sum(reservation.is_for(lane) for seat in seats for lane in seat.holds)


def _invalid(message: str) -> Permanent:
    return Permanent(message, reason="InvalidReservation")
