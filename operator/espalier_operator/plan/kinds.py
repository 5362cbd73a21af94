"""What plans ask of a job of any kind: its workers, its models by role, its sources, the kind itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from espalier_api.benchmarkcomparison import BenchmarkComparison
from espalier_api.benchmarkjob import BenchmarkJob, BenchmarkJobSpec, Target
from espalier_api.benchmarktasks import JUDGE_ROLE, target_role
from espalier_api.common import Endpoint, Source, Workers
from espalier_api.gradingjob import GradingJob
from espalier_api.modelref import ServerRef
from espalier_api.names import WORKER_SUFFIX
from espalier_kube.cluster import BENCHMARK_COMPARISON, BENCHMARK_JOB, GRADING_JOB, Kind
from espalier_operator.plan.facts import Job

JOB_KINDS: dict[str, Kind] = {kind.kind: kind for kind in (GRADING_JOB, BENCHMARK_JOB, BENCHMARK_COMPARISON)}
TYPES: dict[str, type[Job]] = {type_.kind: type_ for type_ in (GradingJob, BenchmarkJob, BenchmarkComparison)}


def worker_name(job: str, kind: str = "GradingJob") -> str:
    """The name of a job's Indexed Job and ServiceAccount."""
    return f"{job}-{WORKER_SUFFIX[kind]}"


def workers_of(job: Job) -> Workers:
    """Who runs the job's tasks."""
    match job:
        case GradingJob():
            return job.spec.workers
        case BenchmarkJob():
            return job.spec.generators
        case BenchmarkComparison():
            return Workers(replicas=1, capacity=1, pod=job.spec.pod)
    assert_never(job)


def model_refs(job: Job) -> tuple[tuple[str, ServerRef], ...]:
    """The models that the job asks, by role."""
    match job:
        case GradingJob():
            return ("code", job.spec.models.code), ("feedback", job.spec.models.feedback)
        case BenchmarkJob():
            judge = job.spec.accuracy.judge if job.spec.accuracy is not None else None
            targets = tuple((target_role(number), target) for number, target in enumerate(job.spec.targets))
            return (*targets, *(((JUDGE_ROLE, judge),) if judge is not None else ()))
        case BenchmarkComparison():
            return ()
    assert_never(job)


def named_targets(job: BenchmarkJob) -> tuple[tuple[str, Target], ...]:
    """A benchmark's targets with the names that reports give them."""
    return tuple((target.name or target_role(n), target) for n, target in enumerate(job.spec.targets))


def field_of(job: Job, role: str) -> str:
    """Where in the spec the model of that role stands, for a person."""
    if isinstance(job, GradingJob):
        return f"models.{role}"
    return "accuracy.judge" if role == JUDGE_ROLE else f"targets[{role.rpartition('-')[2]}]"


def fallbacks(job: Job) -> tuple[Endpoint, ...]:
    """Endpoints that are asked when no other server answers: never by a benchmark, which measures the named ones."""
    return job.spec.models.fallback if isinstance(job, GradingJob) else ()


def sources_of(job: Job) -> dict[str, Source]:
    """The job's sources by the field that names them."""
    match job:
        case GradingJob():
            return {"assignment": job.spec.assignment, "submissions": job.spec.submissions}
        case BenchmarkJob():
            return dict(_benchmark_sources(job.spec))
        case BenchmarkComparison():
            return {}
    assert_never(job)


def _benchmark_sources(spec: BenchmarkJobSpec) -> Iterator[tuple[str, Source]]:
    if spec.load is not None and spec.load.trace is not None:
        yield "load.trace.source", spec.load.trace.source
    if spec.dataset is not None and spec.dataset.file is not None:
        yield "dataset.file", spec.dataset.file
    if spec.accuracy is not None:
        if spec.accuracy.texts is not None:
            yield "accuracy.texts", spec.accuracy.texts
        for number, pack in enumerate(spec.accuracy.packs):
            if pack.file is not None:
                yield f"accuracy.packs[{number}].file", pack.file
