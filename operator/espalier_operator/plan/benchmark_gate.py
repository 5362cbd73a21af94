"""Whether a benchmark's figures keep its gate: the condition Passed. Pure.

A percentile keeps a limit only if its whole 95 % bound does: what the samples cannot decide has not passed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from espalier_api.benchmarkfigures import LatencyFigure, TargetFigures
from espalier_api.benchmarkload import Gate
from espalier_api.benchmarktasks import BenchmarkValue
from espalier_operator.plan.conditions import State

LATENCIES = ("ttft", "itl", "tpot", "e2e")
_CLOCKS = ("response", "service")
"""From when a request was due, where that is measured: that is what a user waits."""
_SHARES = {
    "requestsPerSecond": "requests_per_second", "outputTokensPerSecond": "output_tokens_per_second",
    "goodputPerSecond": "goodput_per_second", "goodShare": "good_share",
}


@dataclass(frozen=True, slots=True)
class Bounded:
    """A figure with what is known of it; None where nothing is."""

    label: str
    value: float | None
    low: float | None
    high: float | None


def judge(gates: tuple[Gate, ...], report: BenchmarkValue) -> tuple[State, str, str]:
    """Status, reason and message of Passed."""
    if report.validity.verdict != "Valid":
        said = "; ".join(reason.message for reason in report.validity.reasons)
        return "False", "GateInconclusive", f"the run is not valid, so its figures decide nothing: {said}"
    broken, unclear = [], []
    for gate in gates:
        figures = list(_figures(gate, report))
        if not figures:
            unclear.append(f"{_name(gate)} was not measured")
        for figure in figures:
            verdict, said = _keeps(gate, figure)
            if verdict is None:
                unclear.append(said)
            elif not verdict:
                broken.append(said)
    if broken:
        return "False", "GateFailed", "; ".join([*broken, *unclear])
    if unclear:
        return "False", "GateInconclusive", "; ".join(unclear)
    return "True", "GatePassed", f"{len(gates)} limit{'s' if len(gates) != 1 else ''} kept"


def _keeps(gate: Gate, figure: Bounded) -> tuple[bool | None, str]:
    if figure.value is None:
        return None, f"{figure.label} is unresolved: the run has too few samples for it"
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    wanted = " and ".join(
        f"{word} {limit:g}" for word, limit in (("at most", gate.max), ("at least", gate.min)) if limit is not None
    )
    said = f"{figure.label} is {figure.value:.4g} [{low:.4g}, {high:.4g}], wanted {wanted}"
    if (gate.max is None or high <= gate.max) and (gate.min is None or low >= gate.min):
        return True, said
    if (gate.max is not None and low > gate.max) or (gate.min is not None and high < gate.min):
        return False, said
    return None, f"{said}: the bound allows both"


def _figures(gate: Gate, report: BenchmarkValue) -> Iterator[Bounded]:
    if gate.metric == "accuracy":
        for found in report.accuracy:
            if found.name == gate.name and gate.target in (None, found.target):
                yield Bounded(f"{found.name} of {found.target}", found.value, found.low, found.high)
        return
    for target in report.targets:
        if gate.target in (None, target.name):
            yield _of_target(gate, target)


def _of_target(gate: Gate, target: TargetFigures) -> Bounded:
    label = f"{_name(gate)} of {target.name}"
    if gate.metric in LATENCIES:
        return _latency(gate, target, label)
    if gate.metric == "errorShare":
        share = 1 - target.succeeded / target.requests if target.requests else None
        return Bounded(label, share, share, share)
    value: float | None = getattr(target, _SHARES[gate.metric])
    return Bounded(label, value, value, value)


def _latency(gate: Gate, target: TargetFigures, label: str) -> Bounded:
    found = latency(target, gate.metric)
    wanted = gate.statistic or "p50"
    percentile = next((p for p in found.percentiles if p.name == wanted), None) if found is not None else None
    if percentile is None:
        return Bounded(label, None, None, None)
    return Bounded(label, percentile.value, percentile.low, percentile.high)


def latency(target: TargetFigures, name: str) -> LatencyFigure | None:
    """A latency on the response clock, or on the service clock where that is the only one."""
    for clock in _CLOCKS:
        for found in target.latencies:
            if (found.name, found.clock) == (name, clock):
                return found
    return None


def _name(gate: Gate) -> str:
    return f"{gate.metric} {gate.statistic or 'p50'}" if gate.metric in LATENCIES else gate.name or gate.metric
