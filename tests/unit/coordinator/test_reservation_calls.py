"""Who may hold capacity back."""

from __future__ import annotations

import random
import time

import pytest

from espalier_coordinator.access import Identity
from espalier_coordinator.calls.named import ReservationCalls
from espalier_coordinator.engine import Engine
from espalier_coordinator.host import Host
from espalier_coordinator.model import Job
from espalier_coordinator.store.memory import MemoryStore
from espalier_kit.clock import SystemClock
from espalier_kit.errors import Forbidden, Permanent
from espalier_rpc.v1 import coordinator_pb2 as pb

ADMIN = Identity("admin", None, is_admin=True)
SUBMITTER = Identity("tutor", "course", may_submit=True)


async def reserve(
    caller: Identity, *, pool: str = "", namespace: str = "course", seconds: float = 60
) -> pb.Reservation:
    """For a job of `course`."""
    clock = SystemClock()
    host = Host(Engine(clock, random.Random(1), epoch="1-x"), MemoryStore(), clock)
    host.writer.start()
    try:
        await host.settle(host.engine.submit(Job("u", "course", "u", pool=pool), ()))
        request = pb.Reservation(name="r", namespace=namespace, slots=1, job_uid="u", until=time.time() + seconds)
        return await ReservationCalls(host, clock.now, longest_s=3600).reserve(caller, request)
    finally:
        host.writer.stop(5)


@pytest.mark.parametrize(("caller", "pool"), [(SUBMITTER, ""), (ADMIN, ""), (ADMIN, "gpus")])
async def test_whoever_may(caller: Identity, pool: str) -> None:
    assert (await reserve(caller, pool=pool)).slots == 1


async def test_a_shared_pool_is_not_one_submitters_to_hold() -> None:
    with pytest.raises(Forbidden, match="pool 'gpus' is shared: only an administrator"):
        await reserve(SUBMITTER, pool="gpus")


async def test_nor_is_another_namespace() -> None:
    with pytest.raises(Forbidden, match="'other'"):
        await reserve(SUBMITTER, pool="", namespace="other")


async def test_longer_than_the_longest_time_is_an_administrators_to_ask() -> None:
    assert (await reserve(SUBMITTER, seconds=3500)).slots == 1
    assert (await reserve(ADMIN, seconds=36_000)).slots == 1
    with pytest.raises(Permanent, match=r"held back for 1 h at most, not 10\.0 h: ask for less, or an administrator"):
        await reserve(SUBMITTER, seconds=36_000)
