"""Speed of judges, from their calls: tokens, times, overlap. Pure; names and meanings as in the seed's performance
JSON.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from espalier_api.tasks import JudgePerformance
from espalier_grading.model import Call

Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Combined:
    """Both judges together. `speedup` is Σ of the judges' busy times / busy time of the two as one; `efficiency` its
    fraction of the bound.
    """

    seconds: float
    tokens_per_second: float
    speedup: float
    efficiency: float


def busy_seconds(intervals: Iterable[Interval]) -> float:
    """Length of the union."""
    total, end = 0.0, -math.inf
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def combined(code: Sequence[Call], feedback: Sequence[Call]) -> Combined | None:
    """The overlap of two judges; None unless both were asked. The bound is 1 + min/max of their busy times."""
    if not code or not feedback:
        return None
    times = [busy_seconds(_intervals(code)), busy_seconds(_intervals(feedback))]
    seconds = busy_seconds([*_intervals(code), *_intervals(feedback)])
    if seconds <= 0 or max(times) <= 0:
        return None
    speedup = sum(times) / seconds
    tokens = sum(call.output_tokens for call in [*code, *feedback])
    return Combined(seconds, tokens / seconds, speedup, speedup / (1 + min(times) / max(times)))


def judge_performance(calls: Sequence[Call]) -> JudgePerformance | None:
    """One judge over a job; None if it was never asked."""
    if not calls:
        return None
    generation = sum(call.generation_time_seconds for call in calls)
    output = sum(call.output_tokens for call in calls)
    seconds = sorted(call.ended - call.started for call in calls)
    return JudgePerformance(
        tokens_per_second=round(output / generation, 2) if generation > 0 else 0.0,
        prompt_tokens=sum(call.prompt_tokens for call in calls),
        output_tokens=output,
        p50_seconds=round(percentile(seconds, 0.5), 3),
        p95_seconds=round(percentile(seconds, 0.95), 3),
    )


def percentile(ordered: Sequence[float], fraction: float) -> float:
    """Nearest rank of a sorted sequence."""
    return ordered[max(0, math.ceil(fraction * len(ordered)) - 1)]


def seed_figures(calls: Sequence[Call]) -> dict[str, Any] | None:
    """One judge's figures in the seed's names, summed over calls; rates are of the sums."""
    if not calls:
        return None
    generation = sum(call.generation_time_seconds for call in calls)
    output = sum(call.output_tokens for call in calls)
    return {
        "model": ", ".join(sorted({call.model for call in calls})),
        "server": ", ".join(sorted({call.server for call in calls})),
        "prompt_tokens": sum(call.prompt_tokens for call in calls),
        "output_tokens": output,
        "total_tokens": sum(call.total_tokens for call in calls),
        "generation_time_seconds": round(generation, 3),
        "tokens_per_second": round(output / generation, 2) if generation > 0 else 0.0,
        "prompt_eval_time_seconds": round(sum(call.prompt_eval_time_seconds for call in calls), 3),
    }


def seed_metrics(code: Sequence[Call], feedback: Sequence[Call]) -> dict[str, Any]:
    """The seed's three objects. Its `parallel_efficiency` is the speed-up over one after the other, so that is what
    stands there.
    """
    both = combined(code, feedback)
    together = (
        None
        if both is None
        else {
            "parallel_efficiency": round(both.speedup, 3),
            "fraction_of_bound": round(both.efficiency, 3),
            "combined_throughput_tokens_per_second": round(both.tokens_per_second, 2),
            "total_processing_time": round(both.seconds, 3),
        }
    )
    return {
        "code_performance": seed_figures(code),
        "feedback_performance": seed_figures(feedback),
        "combined_metrics": together,
    }


def _intervals(calls: Sequence[Call]) -> list[Interval]:
    return [(call.started, call.ended) for call in calls]
