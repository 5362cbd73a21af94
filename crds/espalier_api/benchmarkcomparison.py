"""BenchmarkComparison (`bmc`): is the candidate better, as good, worse? A condition that a gate waits for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from espalier_api.benchmarkfigures import DifferenceFigures, ReportFile, Verdict
from espalier_api.common import (
    Column,
    JobStatus,
    PodOverrides,
    Rule,
    RunPolicy,
    immutable,
    never_taken_back,
    settled,
    short_name,
)
from espalier_api.meta import Model, ObjectMeta

Metric = Literal["ttft", "itl", "tpot", "e2e", "throughput", "accuracy"]


class Side(Model):
    """One run of one target."""

    benchmark_job: str = Field(min_length=1, max_length=253, description="A BenchmarkJob here, done or awaited.")
    target: str | None = Field(default=None, max_length=63, description="Which of its targets; its only one.")


class BenchmarkComparisonSpec(Model):
    """The question."""

    baseline: Side
    candidate: Side
    metrics: tuple[Annotated[Metric, Field()], ...] = Field(
        default=("ttft", "itl", "e2e", "throughput"), min_length=1, max_length=6,
        description="Which figures; accuracy where both have the same packs.",
    )  # fmt: skip
    margin: float = Field(default=0.05, ge=0, lt=1, description="How much worse is still good enough: 0.05 is 5 %.")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="False alarms, over all metrics together.")
    power: float = Field(default=0.8, ge=0.5, lt=1, description="Of the smallest effect that is reported as found.")
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of the bootstrap.")
    pod: PodOverrides | None = Field(default=None, description="Of the one worker that computes it.")
    run_policy: RunPolicy = RunPolicy()

    rules: ClassVar[tuple[Rule, ...]] = (
        *(
            immutable(field, instead="apply a new BenchmarkComparison")
            for field in ("baseline", "candidate", "metrics", "margin", "alpha", "power", "seed")
        ),
        *(settled(field) for field in ("retries", "taskTimeoutSeconds")),
        never_taken_back(),
        Rule(
            rule="self.baseline.benchmarkJob != self.candidate.benchmarkJob"
            " || (has(self.baseline.target) && has(self.candidate.target)"
            " && self.baseline.target != self.candidate.target)",
            message="baseline and candidate are the same run: name two jobs, or two targets of one",
        ),
    )


class BenchmarkComparisonStatus(JobStatus):
    """The answer."""

    verdict: Verdict | None = None
    delta: float | None = Field(default=None, description="In percent, of the metric that decides the verdict.")
    metric: str | None = Field(default=None, description="The metric that decides the verdict.")
    interleaved: bool | None = Field(
        default=None, description="False where the two ran one after the other: drift may pass for a difference."
    )
    differences: tuple[DifferenceFigures, ...] | None = None
    files: tuple[ReportFile, ...] | None = None


class BenchmarkComparison(Model):
    """A BenchmarkComparison object."""

    kind: ClassVar[str] = "BenchmarkComparison"
    plural: ClassVar[str] = "benchmarkcomparisons"
    short: ClassVar[str] = "bmc"
    scale: ClassVar[tuple[str, str, str] | None] = None
    selectable: ClassVar[tuple[str, ...]] = (".status.phase", ".status.verdict")
    rules: ClassVar[tuple[Rule, ...]] = (short_name(50),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="VERDICT", json_path=".status.verdict"),
        Column(name="Δ %", type="number", json_path=".status.delta"),
        Column(name="METRIC", json_path=".status.metric"),
        Column(name="PHASE", json_path=".status.phase", priority=1),
        Column(name="AGE", type="date", json_path=".metadata.creationTimestamp"),
    )

    metadata: ObjectMeta
    spec: BenchmarkComparisonSpec
    status: BenchmarkComparisonStatus = BenchmarkComparisonStatus()
