"""Generators start together and find out how far their clocks differ; whoever was interrupted is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from espalier_benchmark.rendezvous import Offset, Rendezvous, Sighting, offset_between
from espalier_kit.clock import ManualClock
from espalier_kit.errors import EspalierError
from tests.support.grading import MemoryArtifacts
from tests.support.timed_server import virtually

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Shifted:
    """A clock whose wall time is ahead of another's."""

    def __init__(self, clock: ManualClock, ahead_s: float) -> None:
        self._clock, self._ahead = clock, timedelta(seconds=ahead_s)

    def now(self) -> datetime:
        return self._clock.now() + self._ahead

    def monotonic(self) -> float:
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)


def generator(
    store: MemoryArtifacts, clock: ManualClock, number: int, *, of: int = 2, ahead_s: float = 0.0, uid: str = "job"
) -> Rendezvous:
    return Rendezvous(
        store, Shifted(clock, ahead_s), uid=uid, number=number, of=of, patience_s=30.0, not_before=EPOCH
    )


async def together(clock: ManualClock, all_: list[Rendezvous], *, turn: int = 0) -> list[datetime]:
    async def meet() -> list[datetime]:
        return await asyncio.gather(*(each.start(turn) for each in all_))

    return await virtually(clock, meet())


@pytest.mark.parametrize("ahead_s", [0.0, 0.03, -0.5, 1.7])
async def test_all_start_at_the_same_second_and_the_offset_is_found(ahead_s: float) -> None:
    store, clock = MemoryArtifacts(), ManualClock()
    all_ = [generator(store, clock, number, of=3, ahead_s=ahead_s if number == 2 else 0) for number in range(3)]
    starts = await together(clock, all_)
    assert len(set(starts)) == 1
    assert starts[0] - EPOCH >= timedelta(seconds=2)
    found = [offset_between(all_[0].sightings, each.sightings) for each in all_[1:]]
    for offset, true in zip(found, (0.0, ahead_s), strict=True):
        assert abs(offset.value_s - true) <= offset.uncertainty_s + 1e-6
        assert offset.uncertainty_s < 0.01


async def test_later_turns_meet_again() -> None:
    store, clock = MemoryArtifacts(), ManualClock()
    both = [generator(store, clock, 0), generator(store, clock, 1)]
    first, second = await together(clock, both), await together(clock, both, turn=1)
    assert len(set(second)) == 1
    assert second[0] > first[0]


@pytest.mark.parametrize(
    ("has_run", "reason", "says"),
    [(False, "GeneratorsMissing", "not ready within 30 s"), (True, "GeneratorLost", "interrupted while the others")],
)
async def test_who_is_alone_says_why(has_run: bool, reason: str, says: str) -> None:
    store, clock = MemoryArtifacts(), ManualClock()
    if has_run:
        await together(clock, [generator(store, clock, number) for number in (0, 1)])
    with pytest.raises(EspalierError, match=says) as refused:
        await virtually(clock, generator(store, clock, 1).start(0))
    assert refused.value.reason == reason


async def test_all_of_them_may_begin_again_after_a_suspension() -> None:
    store, clock = MemoryArtifacts(), ManualClock()
    for _ in range(2):
        starts = await together(clock, [generator(store, clock, number) for number in (0, 1)])
        assert len(set(starts)) == 1


@pytest.mark.parametrize(
    ("laid", "seen", "offset"),
    [
        ([], [], Offset()),
        ([Sighting(10.0, 10.2)], [Sighting(10.1, 10.3)], Offset(0.1, 0.2)),
        (
            [Sighting(10.0, 10.2), Sighting(11.0, 11.0)], [Sighting(10.1, 10.3), Sighting(11.05, 11.15)],
            Offset(0.1, 0.05),
        ),
    ],
)  # fmt: skip
def test_every_tick_narrows_the_offset(laid: list[Sighting], seen: list[Sighting], offset: Offset) -> None:
    found = offset_between(laid, seen)
    assert (found.value_s, found.uncertainty_s) == pytest.approx((offset.value_s, offset.uncertainty_s))
