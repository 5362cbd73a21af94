"""From a job's settings to schedule, window and blocks. Pure."""

from __future__ import annotations

from espalier_api.benchmarkload import Load
from espalier_benchmark.measure import Slo, Window
from espalier_benchmark.paired import Blocks
from espalier_benchmark.schedule import (
    Arrival,
    Bounds,
    Concurrency,
    Constant,
    Gamma,
    Pattern,
    Poisson,
    Ramp,
    Sweep,
    Trace,
)
from espalier_benchmark.traces import azure, mooncake
from espalier_kit.errors import Misconfigured

DEFAULT_BLOCKS = 12
DRAIN_S = 60.0
"""How long answers are waited for after the last request was due, if one may take so long."""
_TURN_OVERHEAD_S = 5.0
_SLOWEST_S = 3600


def pattern(load: Load, arrivals: tuple[Arrival, ...] = ()) -> Pattern:
    """Raises `Misconfigured` (BadLoad) for a field that its pattern needs and that is absent."""
    match load.pattern:
        case "constant":
            return Constant(_given(load, "rate"))
        case "poisson":
            return Poisson(_given(load, "rate"))
        case "gamma":
            return Gamma(_given(load, "rate"), _given(load, "cv"))
        case "ramp":
            return Ramp(_given(load, "start_rate"), _given(load, "end_rate"))
        case "sweep":
            return Sweep(tuple(load.rates or ()))
        case "concurrency":
            return Concurrency(int(_given(load, "concurrency")))
        case "trace":
            return Trace(arrivals, load.trace.speed if load.trace else 1.0)


def arrivals(load: Load, text: str) -> tuple[Arrival, ...]:
    """A trace's. Raises `Misconfigured` (BadTrace)."""
    is_azure = load.trace is not None and load.trace.format == "azure"
    return azure(text) if is_azure else mooncake(text)


def bounds(load: Load) -> Bounds:
    """Where the run, or a block, ends."""
    return Bounds(float(load.duration_seconds) if load.duration_seconds else None, load.requests)


def blocks(load: Load, plan: Pattern) -> Blocks:
    """Of an interleaved run."""
    return Blocks(plan, bounds(load), count=load.blocks or DEFAULT_BLOCKS, seed=load.seed)


def window(load: Load) -> Window:
    """What counts of a run with one target; the end is cut only where the run ends by time."""
    end = load.duration_seconds - load.cooldown_seconds if load.duration_seconds else float("inf")
    return Window(float(load.warmup_seconds), float(end))


def drain_s(load: Load) -> float:
    """After the last request was due."""
    return max(DRAIN_S, float(load.timeout_seconds))


def objective(slo: object) -> Slo | None:
    """The library's objective from the API's. Raises `Misconfigured` (ImpossibleObjective)."""
    if slo is None:
        return None
    return Slo(*(getattr(slo, name) for name in ("ttft_ms", "itl_ms", "e2e_ms")))


def attempt_s(load: Load, *, targets: int, patience_s: float) -> float:
    """The deadline of a generator's attempt: a run that ends by requests alone may take as long as any task may."""
    if load.duration_seconds is None:
        return float(_SLOWEST_S)
    turns = 1 if targets == 1 else 2 * (load.blocks or DEFAULT_BLOCKS) + 2
    return min(_SLOWEST_S, patience_s + turns * (load.duration_seconds + drain_s(load) + _TURN_OVERHEAD_S))


def _given(load: Load, name: str) -> float:
    value = getattr(load, name)
    if value is None:
        raise Misconfigured(f"load.pattern {load.pattern} needs load.{name}", reason="BadLoad")
    return float(value)
