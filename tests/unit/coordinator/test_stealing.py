"""Idle workers get what busy ones have not started, after these have handed it back."""

from __future__ import annotations

from espalier_coordinator.messages import Lease, Verdict
from espalier_coordinator.reservations import Reservation
from espalier_coordinator.scheduling import Demand, Lane, Profile
from espalier_coordinator.stealing import Waiting, choose
from tests.support.coordination import World, lease_of, task


def busy_world(**fields: object) -> World:
    world = World()
    world.submit(*(task(f"t{n}", **fields) for n in range(4)))
    return world


def test_an_idle_worker_gets_what_another_fetched_ahead_only_after_the_hand_back() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=1, prefetch=3)
    held = busy.want(4)
    idle = world.worker("idle", capacity=1, prefetch=3)
    assert idle.want(4) == []
    world.pass_time(0.5, busy, idle)
    assert busy.revoked() == [lease_of(held[-1])], "one slot is free, so one is asked back: the last"
    assert idle.assignments() == [], "nothing is granted twice"
    busy.hand_back(held[-1])
    assert [lease_of(a) for a in idle.assignments()] == [lease_of(held[-1])]


def test_what_was_started_meanwhile_stays_and_is_not_asked_again() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=1, prefetch=1)
    held = busy.want(2)
    world.update(suspended=True)
    idle = world.worker("idle", capacity=4)
    idle.want(4)
    world.pass_time(5, busy, idle)
    assert busy.revoked() == [lease_of(held[1])]
    busy.report(held[1], Verdict.DONE)
    assert world.states()["t1"] == "done"


def test_a_worker_without_prefetch_is_left_alone() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=1)
    busy.want(4)
    idle = world.worker("idle")
    idle.want(4)
    world.pass_time(2, busy, idle)
    assert busy.revoked() == []


def test_it_is_asked_only_for_what_the_idle_one_may_run() -> None:
    world = busy_world(tags=("gpu",))
    busy = world.worker("busy", capacity=1, prefetch=3, tags=("gpu",))
    busy.want(4)
    idle = world.worker("idle")
    idle.want(4)
    world.pass_time(2, busy, idle)
    assert busy.revoked() == []


def test_capacity_that_is_kept_for_others_is_not_idle() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=1, prefetch=3)
    busy.want(4)
    idle = world.worker("idle", capacity=1, tags=("gpu",))
    until = world.clock.now().timestamp() + 60
    world.do(world.engine.reserve(Reservation("ns", "keep", 1, frozenset({"gpu"}), "other-job", until)))
    idle.want(1)
    world.pass_time(2, busy, idle)
    assert busy.revoked() == []
    world.pass_time(60, busy, idle)
    assert len(busy.revoked()) == 1


def test_a_victim_that_dies_instead_of_answering_loses_nothing() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=1, prefetch=3)
    busy.want(4)
    idle = world.worker("idle", capacity=1)
    idle.want(1)
    world.pass_time(0.5, idle)
    busy.hang_up()
    world.pass_time(60, idle)
    while idle.assignments():
        idle.report(idle.assignments()[-1])
        world.pass_time(10, idle)
        if not idle.want(1):
            break
    assert set(world.states().values()) == {"done"}


def test_nobody_is_to_get_more_than_it_has_room_for() -> None:
    """One slot is free on a worker that may run these, three on one that may not."""
    suits, other = (Profile("ns", "", frozenset({kind}), frozenset()) for kind in ("t", "u"))
    idle = [Demand("w", suits, wants=3, held=3, capacity=4), Demand("x", other, wants=3, held=0, capacity=3)]
    lane = Lane("ns", "job", "t", frozenset())
    waiting = [Waiting("busy", Lease(f"t{n}", 1), lane, 2.0) for n in range(4)]
    assert choose(idle, waiting, lambda _demand, _lane: True) == waiting[:1]
    assert choose(idle[:1], waiting, lambda _demand, _lane: True, asked=1) == []


def test_the_fullest_holder_is_asked_first() -> None:
    profile, lane = Profile("ns", "", frozenset({"t"}), frozenset()), Lane("ns", "job", "t", frozenset())
    waiting = [Waiting(f"busy-{load}", Lease(f"t{load}", 1), lane, load) for load in (1.5, 3.0, 2.0)]
    idle = [Demand("w", profile, wants=2, held=0, capacity=2)]
    assert [w.load for w in choose(idle, waiting, lambda _demand, _lane: True)] == [3.0, 2.0]


def test_a_lease_whose_result_is_on_its_way_cannot_be_handed_back() -> None:
    world = busy_world()
    busy = world.worker("busy", capacity=4)
    held = busy.want(4)
    world.is_disk_stuck = True
    busy.report(held[0])
    busy.hand_back(held[0])
    assert world.states()["t0"] == "running"
    world.is_disk_stuck = False
    world.write()
    assert world.states()["t0"] == "done"
    assert world.engine.statistics.handed_back == 0
