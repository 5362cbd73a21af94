"""The BenchmarkJob's plan: the life of a job, with load, questions or any tasks in it."""

from __future__ import annotations

from espalier_api.benchmarkjob import BenchmarkJob
from espalier_operator.plan import benchmark_status, benchmark_work
from espalier_operator.plan.facts import JobFacts, Problem
from espalier_operator.plan.kinds import named_targets
from espalier_operator.plan.life import Life


def _problem(facts: JobFacts[BenchmarkJob]) -> Problem | None:
    """Names of targets that would be mixed up, limits for targets that are not there, a sandbox that no node has."""
    spec = facts.job.spec
    names = [name for name, _ in named_targets(facts.job)]
    if len(set(names)) < len(names):
        return Problem("BadTargets", f"targets: both are called {names[0]}; give each a name of its own")
    unknown = next((gate.target for gate in spec.gate if gate.target is not None and gate.target not in names), None)
    if unknown is not None:
        return Problem("BadTargets", f"gate: there is no target {unknown}; the targets are {', '.join(names)}")
    return facts.sandbox_problem


LIFE: Life[BenchmarkJob] = Life(
    request=benchmark_work.submission,
    problem=_problem,
    may_begin=benchmark_work.may_begin,
    goes=benchmark_work.goes,
    is_admitted=benchmark_status.is_admitted,
    checked="targets, data and objectives were checked",
    said=benchmark_status.said,
    completed=benchmark_status.completed,
    numbers=benchmark_status.numbers,
    reported=benchmark_status.reported,
    degraded=benchmark_status.degraded,
)
