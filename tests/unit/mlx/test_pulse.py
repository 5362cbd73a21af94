"""Health is tokens."""

import asyncio

import pytest

from espalier_kit.clock import ManualClock
from espalier_mlx.program import watch
from espalier_mlx.pulse import Patience, Pulse, Speed, fault

PATIENCE = Patience(watchdog_s=120, load_timeout_s=600)


def test_idle_time_is_no_stall_and_waiting_work_is():
    pulse = Pulse(0.0)
    assert pulse.stalled_s(1000.0) == 0.0
    pulse.set_busy(True, 1000.0)
    assert pulse.stalled_s(1100.0) == 100.0
    pulse.beat(1090.0)
    assert pulse.stalled_s(1100.0) == 10.0
    pulse.set_busy(False, 1100.0)
    assert pulse.stalled_s(2000.0) == 0.0


def test_speed_is_over_the_last_requests():
    pulse = Pulse(0.0)
    assert pulse.tokens_per_second() == 0.0
    pulse.record(Speed(100, 2.0))
    pulse.record(Speed(50, 1.0))
    assert pulse.tokens_per_second() == 50.0


@pytest.mark.parametrize(
    ("state", "stalled_s", "age_s", "expected"),
    [
        pytest.param("ready", 0, 9999, "", id="ready and moving"),
        pytest.param("ready", 119, 9999, "", id="slow, not stalled"),
        pytest.param("ready", 121, 9999, "no token came for 121 s", id="stalled"),
        pytest.param("loading", 0, 599, "", id="loading"),
        pytest.param("loading", 0, 601, "still loading after 601 s", id="loading for too long"),
        pytest.param("dead", 0, 1, "ended: boom", id="dead"),
        pytest.param("stopped", 0, 1, "", id="stopped on purpose"),
    ],
)
def test_fault(state, stalled_s, age_s, expected):
    pulse = Pulse(0.0)
    pulse.set_busy(True, 0.0)
    reason = fault(pulse, state=state, message="boom", age_s=age_s, now=stalled_s, patience=PATIENCE)
    assert reason.endswith(expected)
    assert bool(reason) is bool(expected)


async def test_the_watchdog_gives_up_once_a_fault_shows():
    clock, pulse, ended, given = ManualClock(), Pulse(0.0), asyncio.Event(), []
    pulse.set_busy(True, 0.0)

    def look():
        return fault(pulse, state="ready", message="", age_s=0, now=clock.monotonic(), patience=PATIENCE)

    async def give_up(reason):
        given.append(reason)

    task = asyncio.create_task(watch(look, ended, clock=clock, give_up=give_up))
    await clock.advance(119)
    assert given == []
    await clock.advance(3)
    assert given == ["work is waiting but no token came for 121 s"]
    await task
