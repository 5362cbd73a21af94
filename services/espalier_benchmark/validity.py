"""Whether a run's figures are the server's or the generator's own: a verdict with its reasons. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from espalier_benchmark.records import Record

LAG_LIMITS_S = {0.5: 0.005, 0.99: 0.020}
"""How late a generator may be, by quantile. Fixed, never a share of the measured latency: an overloaded generator
inflates that too, and would excuse itself.
"""
CPU_LIMIT = 0.8
CLOCK_OFFSET_LIMIT_S = 0.010
NOT_SENT_LIMIT = 0.01
MIN_PROBES = 20


@dataclass(frozen=True, slots=True)
class Health:
    """What one generator saw of itself. `loop_lags_s`: how late its probe woke up; `cpu_share`: of one core."""

    scheduled: int
    sent: int
    wall_s: float
    loop_lags_s: tuple[float, ...] = ()
    cpu_share: float = 0.0
    generator: int = 0
    clock_offset_s: float = 0.0
    """This machine's clock against generator 0's."""
    clock_uncertainty_s: float = 0.0
    """The offset is within so much of `clock_offset_s`."""
    started_at: float = 0.0
    """Wall time of the run's second 0."""


@dataclass(frozen=True, slots=True)
class Reason:
    """`reason` is CamelCase, for a condition; `message` a sentence with the figures."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Validity:
    """The verdict."""

    reasons: tuple[Reason, ...] = ()

    @property
    def verdict(self) -> Literal["Valid", "Invalid"]:
        """Invalid as soon as there is one reason."""
        return "Invalid" if self.reasons else "Valid"


def judge(records: Sequence[Record], healths: Sequence[Health]) -> Validity:
    """The verdict over all generators of a run. A generator's turns in an interleaved run are judged as the one run
    that they are: of the few probes of a short turn the p99 is the latest one, and one late one is no tail.
    """
    reasons = [*_of_records(records)]
    for number in sorted({health.generator for health in healths}):
        whole = together([health for health in healths if health.generator == number])
        reasons += _of_generator(whole, [r for r in records if r.generator == number])
    return Validity(tuple(reasons))


def together(turns: Sequence[Health]) -> Health:
    """One generator's turns as one. The fullest core counts: it may be that only one of two targets fills it."""
    return replace(
        max(turns, key=lambda turn: abs(turn.clock_offset_s) - turn.clock_uncertainty_s),
        scheduled=sum(turn.scheduled for turn in turns),
        sent=sum(turn.sent for turn in turns),
        wall_s=sum(turn.wall_s for turn in turns),
        loop_lags_s=tuple(lag for turn in turns for lag in turn.loop_lags_s),
        cpu_share=max(turn.cpu_share for turn in turns),
    )


def _of_records(records: Sequence[Record]) -> list[Reason]:
    if any(record.is_ok for record in records):
        return []
    kinds = sorted({record.error for record in records}) or ["nothing was sent"]
    return [Reason("NothingMeasured", f"not one request of {len(records)} was answered: {', '.join(kinds)}")]


def _of_generator(health: Health, records: Sequence[Record]) -> list[Reason]:
    name, found = f"generator {health.generator}", []
    if late := _lateness([record.client_lag_s for record in records if record.error != "not-sent"]):
        found.append(Reason("ClientOverloaded", f"{name} sent {late}"))
    if len(health.loop_lags_s) >= MIN_PROBES and (late := _lateness(health.loop_lags_s)):
        found.append(Reason("LoopLag", f"{name} woke up {late}"))
    if health.cpu_share > CPU_LIMIT:
        found.append(Reason("CpuSaturated", f"{name} used {health.cpu_share:.0%} of its core: add generators"))
    missed = health.scheduled - health.sent
    if missed > NOT_SENT_LIMIT * health.scheduled:
        found.append(Reason("NotSent", f"{name} never sent {missed} of {health.scheduled} requests"))
    if abs(health.clock_offset_s) - health.clock_uncertainty_s > CLOCK_OFFSET_LIMIT_S:
        off = f"{health.clock_offset_s * 1e3:.1f} ± {health.clock_uncertainty_s * 1e3:.1f} ms"
        found.append(Reason("ClockOffset", f"the clock of {name} is off by {off}"))
    return found


def _lateness(lags: Sequence[float]) -> str:
    """What exceeds a limit, in words; empty for nothing. Plain order statistics: nothing is claimed of a population."""
    ordered = sorted(lags)
    for q, limit in LAG_LIMITS_S.items():
        lag = ordered[min(len(ordered) - 1, int(len(ordered) * q))] if ordered else 0.0
        if lag > limit:
            return f"{lag * 1e3:.1f} ms late at its p{q * 100:g}; {limit * 1e3:g} ms is the limit"
    return ""
