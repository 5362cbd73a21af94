"""How generators start together and learn how far their clocks differ, through the artifact store alone.

Whoever knows a flag's bytes knows its digest, so that "is it there yet?" is a question the store can answer: each
generator lays its flag "ready", generator 0 waits for all of them and lays the flag of a start a few seconds ahead.
Then it lays ticks and notes when; the others note when they last missed each tick and first saw it. Both notes together
bound the offset of the clocks from both sides, whatever the network's delays were.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from espalier_kit.artifacts import ArtifactStore
from espalier_kit.clock import Clock
from espalier_kit.digest import canonical_json, sha256
from espalier_kit.errors import NotFound
from espalier_kit.execution import EvaluatorFault, PlatformFault

LEAD_S = 2.0
"""From the moment all are ready to the start, beside the time for the ticks."""
TICKS = 6
_TICK_GAP_S = 0.25
_TICK_POLL_S = 0.01
_POLL_S = 0.25
_AHEAD = 12
"""Whole seconds around now among which a follower looks for the start."""
_BEHIND = 6


@dataclass(frozen=True, slots=True)
class Sighting:
    """Between `early` and `late`, wall seconds of the own clock, a tick came into being."""

    early: float
    late: float


@dataclass(frozen=True, slots=True)
class Offset:
    """How far a clock is ahead of generator 0's, in seconds, give or take."""

    value_s: float = 0.0
    uncertainty_s: float = 0.0


def offset_between(laid: Sequence[Sighting], seen: Sequence[Sighting]) -> Offset:
    """The offsets that all ticks allow: own time less the leader's. Nothing seen says nothing. Pure."""
    pairs = list(zip(laid, seen, strict=False))
    if not pairs:
        return Offset()
    low = max(own.early - leader.late for leader, own in pairs)
    high = min(own.late - leader.early for leader, own in pairs)
    return Offset((low + high) / 2, max(0.0, (high - low) / 2))


@dataclass(slots=True)
class Rendezvous:
    """One generator's side. `patience_s`: how long it waits for the others."""

    store: ArtifactStore
    clock: Clock
    uid: str
    number: int
    of: int
    patience_s: float
    not_before: datetime
    sightings: list[Sighting] = field(default_factory=list)
    """Of the ticks: laid by generator 0, seen by the others."""
    _round: int = -1

    async def start(self, turn: int) -> datetime:
        """The common second 0 of a turn. Raises `PlatformFault` (GeneratorsMissing) if the others do not come, and
        `EvaluatorFault` (GeneratorLost) if they were interrupted in the middle.
        """
        if self._round < 0:
            self._round = await self._first_open_round()
        await self._lay(self._flag("ready", turn, self.number))
        if self.number == 0:
            return await self._lead(turn)
        return await self._follow(turn)

    async def _lead(self, turn: int) -> datetime:
        for other in range(1, self.of):
            await self._until(self._flag("ready", turn, other), what=f"generator {other}")
        ticks = TICKS if turn == 0 and self.of > 1 else 0
        lead = LEAD_S + ticks * _TICK_GAP_S
        second = math.ceil(max(self._now() + lead, self.not_before.timestamp()))
        await self._lay(self._flag("start", turn, second))
        await self._lay(self._flag("started", turn, 0))
        for tick in range(ticks):
            await self.clock.sleep(_TICK_GAP_S)
            before = self._now()
            await self._lay(self._flag("tick", turn, tick))
            self.sightings.append(Sighting(before, self._now()))
        return datetime.fromtimestamp(second, UTC)

    async def _follow(self, turn: int) -> datetime:
        await self._until(self._flag("started", turn, 0), what="generator 0")
        second = await self._find_start(turn)
        for tick in range(TICKS if turn == 0 else 0):
            self.sightings.append(await self._watch(self._flag("tick", turn, tick), until=second - 0.5))
        return datetime.fromtimestamp(second, UTC)

    async def _find_start(self, turn: int) -> int:
        now = int(self._now())
        earliest = int(self.not_before.timestamp())
        near = range(now - _BEHIND, now + _AHEAD)
        candidates: set[int] = {*near, *range(earliest, earliest + 2)}
        for second in sorted(candidates):
            if await self._is_laid(self._flag("start", turn, second)):
                return second
        raise PlatformFault(
            f"generator {self.number} cannot find the common start: its clock is off by many seconds, or it was late",
            reason="StartMissed",
        )

    async def _watch(self, flag: bytes, *, until: float) -> Sighting:
        missed = -math.inf
        while True:
            asked = self._now()
            if await self._is_laid(flag):
                return Sighting(missed, self._now())
            if asked > until:
                return Sighting(missed, math.inf)
            missed = asked
            await self.clock.sleep(_TICK_POLL_S)

    async def _first_open_round(self) -> int:
        """Beyond 0 a run of this job had begun before: this generator, or all of them, were interrupted."""
        number = 0
        while await self._is_laid(self._flag("started", 0, 0, round_=number)):
            number += 1
        return number

    async def _until(self, flag: bytes, *, what: str) -> None:
        end = self.clock.monotonic() + self.patience_s
        while not await self._is_laid(flag):
            if self.clock.monotonic() > end:
                raise self._missing(what)
            await self.clock.sleep(_POLL_S)

    def _missing(self, what: str) -> Exception:
        if self._round == 0:
            return PlatformFault(
                f"{what} was not ready within {self.patience_s:.0f} s: all {self.of} generators start together",
                reason="GeneratorsMissing",
            )
        return EvaluatorFault(
            f"generator {self.number} was interrupted while the others ran ({what} is not starting again): its share "
            "of the load was not sent; apply the job again",
            reason="GeneratorLost",
        )

    def _flag(self, kind: str, turn: int, number: int, *, round_: int | None = None) -> bytes:
        return canonical_json(
            {
                "rendezvous": self.uid,
                "kind": kind,
                "round": self._round if round_ is None else round_,
                "turn": turn,
                "number": number,
            }
        )

    async def _lay(self, flag: bytes) -> None:
        await self.store.put(flag)

    async def _is_laid(self, flag: bytes) -> bool:
        try:
            await self.store.get(sha256(flag))
        except NotFound:
            return False
        return True

    def _now(self) -> float:
        return self.clock.now().timestamp()
