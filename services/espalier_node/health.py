"""The probes of one running container: startup first, then liveness and readiness side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from espalier_node.podspec import ContainerSpec
from espalier_node.probes import Count, Execute, Outcome, Schedule, attempt, schedule

ProbeKind = Literal["startup", "readiness", "liveness"]


@dataclass(slots=True)
class Verdict:
    """What the probes of one run say so far."""

    is_started: bool
    is_ready: bool


Changed = Callable[[], None]
Failed = Callable[[ProbeKind, str], Awaitable[None]]
Fatal = Callable[[ProbeKind], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Reports:
    """Where results go: `changed` after a verdict changed, `failed` for each failed try, `fatal` ends the container."""

    changed: Changed
    failed: Failed
    fatal: Fatal


def first_verdict(container: ContainerSpec, *, was_ready: bool, was_started: bool) -> Verdict:
    """Before any try. What an earlier agent reported of the same run stays true until a probe says otherwise."""
    is_started = was_started or container.probe("startup") is None
    has_readiness = container.probe("readiness") is not None
    return Verdict(is_started=is_started, is_ready=is_started and (was_ready or not has_readiness))


class Prober:
    """Runs a container's probes until cancelled, writing into `verdict`."""

    def __init__(
        self, container: ContainerSpec, verdict: Verdict, *, address: str, execute: Execute, reports: Reports,
        running_s: float,
    ) -> None:
        self._container, self._verdict = container, verdict
        self._address, self._execute, self._reports = address, execute, reports
        self._running_s = running_s
        """How long the container already runs: initial delays count from its start."""

    async def run(self) -> None:
        """Until cancelled, or until a probe was fatal."""
        if not self._verdict.is_started and not await self._start_up():
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._liveness())
            group.create_task(self._readiness())

    async def _start_up(self) -> bool:
        probe = self._container.probe("startup")
        assert probe is not None
        has_passed = await self._until_verdict("startup", probe, ends_on=(True, False))
        if not has_passed:
            await self._reports.fatal("startup")
            return False
        self._verdict.is_started = True
        self._verdict.is_ready = self._container.probe("readiness") is None
        self._reports.changed()
        return True

    async def _liveness(self) -> None:
        probe = self._container.probe("liveness")
        if probe is not None:
            await self._until_verdict("liveness", probe, ends_on=(False,))
            await self._reports.fatal("liveness")

    async def _readiness(self) -> None:
        probe = self._container.probe("readiness")
        if probe is not None:
            await self._until_verdict("readiness", probe, ends_on=())

    async def _until_verdict(self, kind: ProbeKind, probe: Mapping[str, Any], *, ends_on: tuple[bool, ...]) -> bool:
        plan, count = schedule(probe), Count()
        await asyncio.sleep(max(0.0, plan.initial_delay_s - self._running_s))
        while True:
            outcome = await self._try(kind, probe, plan)
            count = count.after(outcome)
            verdict = count.verdict(plan)
            if kind == "readiness" and verdict is not None and verdict != self._verdict.is_ready:
                self._verdict.is_ready = verdict
                self._reports.changed()
            if verdict in ends_on and verdict is not None:
                return verdict
            await asyncio.sleep(plan.period_s)

    async def _try(self, kind: ProbeKind, probe: Mapping[str, Any], plan: Schedule) -> Outcome:
        try:
            async with asyncio.timeout(plan.timeout_s + 0.5):
                outcome = await attempt(
                    probe, self._container, address=self._address, timeout_s=plan.timeout_s, execute=self._execute
                )
        except TimeoutError:
            outcome = Outcome(False, f"no answer within {plan.timeout_s:g} s")
        if not outcome.is_success:
            await self._reports.failed(kind, outcome.message)
        return outcome
