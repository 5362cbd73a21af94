"""A run in the shape of llm-d's Benchmark Report v0.2, so that other tools' results lie beside ours. Pure.

The format has no place for bounds, verdicts or the response clock: those are in `report.json`. Its percentiles are ours
where the samples resolve them, and absent where not; its latencies are of the service clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from espalier_benchmark.measure import Latency, Summary
from espalier_benchmark.records import CENSORED, Record
from espalier_kit.digest import value_digest

_PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p99p9"}


def as_benchmark_report(
    records: Sequence[Record], summary: Summary, *, name: str, target: str, load: str
) -> dict[str, Any]:
    """Schema v0.2: `run`, `scenario`, `results`."""
    latency = {
        "time_to_first_token": _statistics(summary.latency("ttft"), "s"),
        "time_per_output_token": _statistics(summary.latency("tpot"), "s/token"),
        "inter_token_latency": _statistics(summary.latency("itl"), "s/token"),
        "request_latency": _statistics(summary.latency("e2e"), "s"),
    }
    answered = [record for record in records if record.is_ok]
    wall = summary.wall_s
    rates = {
        "input_token_rate": _rate(summary.prompt_tokens, wall, "tokens/s"),
        "output_token_rate": _rate(summary.output_tokens, wall, "tokens/s"),
        "total_token_rate": _rate(summary.prompt_tokens + summary.output_tokens, wall, "tokens/s"),
        "request_rate": _rate(summary.succeeded, wall, "queries/s"),
    }
    requests = {
        "total": summary.requests,
        "failures": summary.requests - summary.succeeded,
        "incomplete": sum(record.error in CENSORED for record in records),
        "input_length": _lengths([float(record.prompt_tokens) for record in answered]),
        "output_length": _lengths([record.output_tokens for record in answered]),
    }
    return {
        "version": "0.2",
        "run": {
            "uid": value_digest({"name": name, "target": target, "requests": summary.requests, "wall": wall}),
            "description": f"{name}: {target}",
            "time": {"duration": f"PT{wall:.3f}S", "end": datetime.now(UTC).isoformat()},
        },
        "scenario": {"load": _load(records, load)},
        "results": {
            "request_performance": {
                "aggregate": {
                    "requests": _known(requests),
                    "latency": _known(latency),
                    "throughput": _known(rates),
                }
            }
        },
    }


def _load(records: Sequence[Record], load: str) -> dict[str, Any]:
    answered = [record for record in records if record.is_ok]
    mean = sum(record.prompt_tokens for record in answered) / len(answered) if answered else 0.0
    generators = len({record.generator for record in records}) or 1
    return {
        "metadata": {"cfg_id": value_digest({"load": load}), "description": load},
        "standardized": {
            "tool": "espalier",
            "tool_version": version("espalier"),
            "parallelism": generators,
            "source": "unknown",
            "input_seq_len": {"distribution": "other", "value": mean},
        },
        "native": {},
    }


def _statistics(latency: Latency, units: str) -> dict[str, Any] | None:
    if latency.mean_s is None:
        return None
    resolved = {_PERCENTILES[p.name]: p.value for p in latency.percentiles if p.value is not None}
    return {"units": units, "mean": latency.mean_s, **resolved}


def _lengths(values: Sequence[float]) -> dict[str, Any] | None:
    if not values:
        return None
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    return {"units": "count", "mean": mean, "stddev": deviation, "min": min(values), "max": max(values)}


def _rate(count: float, seconds: float, units: str) -> dict[str, Any] | None:
    return {"units": units, "mean": count / seconds} if seconds > 0 else None


def _known(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
