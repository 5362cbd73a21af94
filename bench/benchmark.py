"""The benchmark harness measured itself: against a server of known delays, by its lag, by a stall and by a planted
difference.

What is true is the server's own diary of its sends, so that a busy machine's delays count as the server's, and only
what the harness adds or loses counts against it.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from bench.delays import running
from bench.runner import Figure, Options, Result, Scenario, figure, machine, repeat
from espalier_benchmark.client import Client
from espalier_benchmark.compare import Difference, Rules, compare
from espalier_benchmark.generate import Generator, Stopwatch
from espalier_benchmark.generate import Options as GeneratorOptions
from espalier_benchmark.items import synthetic
from espalier_benchmark.paired import Blocks, Lane, run_paired
from espalier_benchmark.precise import precise_clock
from espalier_benchmark.records import Record
from espalier_benchmark.schedule import Bounds, Concurrency, Constant, Poisson, Schedule, schedule
from espalier_benchmark.validity import Health
from espalier_kit.clock import SystemClock
from espalier_kit.execution import ModelEndpoint

ALLOWED_S, ALLOWED_SHARE = 0.002, 0.02
"""A percentile may be off by 2 ms and 2 %."""
LAG_RATE = 500.0
STALL = (2.0, 4.0)
PLANTED = 1.05
BLOCKS, BLOCK_REQUESTS = 12, 8
PAIRS, QUICK_PAIRS = 20, 1
"""Pairs of real servers that differ, and as many that do not; one takes ten seconds."""
POWER = 0.8
"""Of the pairs that differ at least such a share must be found, or the benchmark fails; a quick one is too few."""
_TOKENS = 16


async def measure(options: Options) -> dict[str, float]:
    """All figures of one server once."""
    requests = 300 if options.quick else 1500
    return {
        **await _accuracy(requests, options.seed),
        **await _lag(seconds=2 if options.quick else 8, seed=options.seed),
        **await _stall(options.seed),
    }


async def _accuracy(requests: int, seed: int) -> dict[str, float]:
    """How far p50 and p90 of TTFT, ITL and E2E are from what the server did, as a share of what is allowed."""
    with running(seed=seed, tokens=_TOKENS) as server:
        records, _ = await _run(server.url, schedule(Poisson(60.0), Bounds(requests=requests), seed=seed))
        diary = server.diary()
    pairs = {
        "ttft": ([r.ttft_s or 0.0 for r in records], [sent[0] - arrived for arrived, sent in diary]),
        "itl": ([gap for r in records for gap, _ in r.gaps()], [g for _, sent in diary for g in _gaps(sent)]),
        "e2e": ([r.service_s for r in records], [sent[-1] - arrived for arrived, sent in diary]),
    }
    found = {}
    for name, (measured, true) in pairs.items():
        for percent in (50, 90):
            ours, theirs = _percentile(measured, percent), _percentile(true, percent)
            found[f"{name}_p{percent}_error"] = (ours - theirs) * 1e3
            found[f"{name}_p{percent}_used"] = abs(ours - theirs) / (ALLOWED_S + ALLOWED_SHARE * theirs)
    worst = max(value for name, value in found.items() if name.endswith("_used"))
    if worst > 1:
        raise RuntimeError(f"a percentile is off by {worst:.2f} times what is allowed: {found}")
    return {**found, "worst_used": worst}


async def _lag(*, seconds: int, seed: int) -> dict[str, float]:
    """How late requests are sent at 500 a second on one core, each an answer of four tokens."""
    plan = schedule(Constant(LAG_RATE), Bounds(duration_s=float(seconds)), seed=seed)
    with running(seed=seed, tokens=4, scale=0.5) as server:
        await _run(server.url, schedule(Constant(LAG_RATE), Bounds(requests=200), seed=seed))
        records, health = await _run(server.url, plan)
    lags = [record.client_lag_s for record in records]
    return {
        "lag_p50": _percentile(lags, 50) * 1e3,
        "lag_p99": _percentile(lags, 99) * 1e3,
        "generator_cpu": health.cpu_share,
        "answered": sum(record.is_ok for record in records) / len(records),
    }


async def _stall(seed: int) -> dict[str, float]:
    """p99 on both clocks where the server stands still for two seconds and 3 requests may be in flight: only they saw
    it, and they are fewer than one in a hundred; everybody else waited.
    """
    plan = schedule(Constant(60.0), Bounds(duration_s=8.0), seed=seed)
    with running(seed=seed, tokens=_TOKENS, scale=0.1, stall=STALL) as server:
        records, _ = await _run(server.url, plan, max_in_flight=3)
    return {
        "stall_response_p99": _percentile([record.response_s for record in records], 99),
        "stall_service_p99": _percentile([record.service_s for record in records], 99),
    }


async def pairs(count: int, seed: int) -> dict[str, Figure]:
    """How many of so many pairs are found different: of servers of which one is 5 % slower, and of equal ones."""
    planted = [await _pair(PLANTED, seed + number) for number in range(count)]
    equal = [await _pair(1.0, seed + number) for number in range(count)]
    found = sum(each.verdict == "Regressed" for each in planted) / count
    if count == PAIRS and found < POWER:
        raise RuntimeError(f"of {count} pairs with a server 5 % slower only {found:.0%} are found")
    # p is what an alarm at 5 % needs; "Passed" may be beside it where the whole interval is within the margin.
    alarms = sum(each.p <= Rules().alpha for each in equal) / count
    return {
        "planted_delta": figure([100 * (each.delta or 0.0) for each in planted], "%"),
        "planted_low": figure([100 * (each.low or 0.0) for each in planted], "%"),
        "planted_found": figure([found], f"of {count} pairs"),
        "equal_delta": figure([100 * (each.delta or 0.0) for each in equal], "%"),
        "equal_called_different": figure([alarms], f"of {count} pairs"),
    }


async def _pair(scale: float, seed: int) -> Difference:
    """Two real servers in an interleaved run, the second one's delays times `scale`."""
    clock, records = SystemClock(), list[Record]()
    with running(seed=seed, tokens=_TOKENS) as fast, running(seed=seed, tokens=_TOKENS, scale=scale) as other:
        watches = [Stopwatch(clock), Stopwatch(clock)]
        async with (
            Client(_endpoint(fast.url, "baseline"), watches[0].now) as baseline,
            Client(_endpoint(other.url, "candidate"), watches[1].now) as candidate,
        ):
            await run_paired(
                (Lane(baseline, watches[0]), Lane(candidate, watches[1])),
                Blocks(Concurrency(4), Bounds(requests=BLOCK_REQUESTS), count=BLOCKS, seed=seed),
                items=synthetic(seed=seed, prompt_tokens=5, output_tokens=_TOKENS),
                write=records.append,
                options=GeneratorOptions(),
            )
    found = compare(records, baseline="baseline", candidate="candidate", metrics=["e2e"], rules=Rules(margin=0.01))
    (e2e,) = found.differences
    return e2e


async def _run(url: str, plan: Schedule, *, max_in_flight: int | None = None) -> tuple[list[Record], Health]:
    records: list[Record] = []
    options = replace(GeneratorOptions(), max_in_flight=max_in_flight)
    items = synthetic(seed=1, prompt_tokens=5, output_tokens=_TOKENS)
    with precise_clock() as clock:
        watch = Stopwatch(clock)
        async with Client(_endpoint(url, "target"), watch.now) as client:
            health = await Generator(client, watch, items=items, write=records.append, options=options).run(plan)
    failed = [record.error for record in records if record.error]
    if failed:
        raise RuntimeError(f"{len(failed)} requests failed: {sorted(set(failed))}")
    return records, health


def _endpoint(url: str, name: str) -> ModelEndpoint:
    return ModelEndpoint("target-0", url, "delays", name=name)


def _gaps(sent: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(sent)]


def _percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


_UNITS: Mapping[str, str] = {
    **{f"{name}_p{percent}_error": "ms" for name in ("ttft", "itl", "e2e") for percent in (50, 90)},
    "worst_used": "of the allowance of 2 ms + 2 %",
    "lag_p50": "ms at 500 requests/s",
    "lag_p99": "ms at 500 requests/s",
    "generator_cpu": "cores",
    "stall_response_p99": "s",
    "stall_service_p99": "s",
}


def run(options: Options) -> Result:
    """Median of the repetitions; the pairs once, as each is a repetition."""
    n, count = (1, QUICK_PAIRS) if options.quick else (3, PAIRS)
    metrics = repeat(lambda: asyncio.run(measure(options)), warmup=0 if options.quick else 1, n=n, units=_UNITS)
    metrics |= asyncio.run(pairs(count, options.seed))
    return Result(
        scenario=SCENARIO.name,
        machine=machine(),
        seed=options.seed,
        warmup=0 if options.quick else 1,
        n=n,
        metrics=metrics,
        ratios={
            "largest error against what is allowed (at most 1)": metrics["worst_used"].median,
            "lag p99 at 500 requests/s against 1 ms (at most 1)": metrics["lag_p99"].median,
            "response p99 against service p99 in a stall": (
                metrics["stall_response_p99"].median / metrics["stall_service_p99"].median
            ),
        },
        note="Errors are of the harness against the server's own diary; the server runs in a process of its own. "
        f"planted and equal: {count} pairs of real servers each, {BLOCKS} blocks of {BLOCK_REQUESTS} requests to each "
        "server, delays of one 5 % longer or none; median, smallest and largest are over the pairs.",
    )


SCENARIO = Scenario("benchmark", "The load generator against a server whose delays are known.", run)
