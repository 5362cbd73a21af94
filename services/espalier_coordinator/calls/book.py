"""All calls together, as one coordinator offers them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from espalier_coordinator.calls.fleet import FleetCalls
from espalier_coordinator.calls.jobs import Defaults, JobCalls
from espalier_coordinator.calls.named import LetterCalls, ReservationCalls, TemplateCalls
from espalier_coordinator.calls.workers import WorkerCalls
from espalier_coordinator.health import Health
from espalier_coordinator.host import Host
from espalier_kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Calls:
    """By what they are about."""

    jobs: JobCalls
    workers: WorkerCalls
    fleet: FleetCalls
    letters: LetterCalls
    templates: TemplateCalls
    reservations: ReservationCalls


def calls_of(
    host: Host, health: Health, clock: Clock, *, pools: Collection[str] = (), retries: int = 3,
    heartbeat_s: float = 5.0, timeout_s: float = 10.0, longest_reservation_s: float = 0.0,
) -> Calls:
    """Times in seconds: how often workers are to be heard, and how long one may be silent before it is degraded."""
    jobs = JobCalls(host, pools, Defaults(retries))
    return Calls(
        jobs, WorkerCalls(host, clock, heartbeat_s=heartbeat_s),
        FleetCalls(host, health, now=clock.monotonic, timeout_s=timeout_s), LetterCalls(host, jobs),
        TemplateCalls(host), ReservationCalls(host, clock.now, longest_s=longest_reservation_s),
    )
