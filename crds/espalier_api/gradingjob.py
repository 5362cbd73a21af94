"""GradingJob (`gj`): a class of notebooks, graded by tests and by two models at once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from espalier_api.common import (
    Column,
    Endpoint,
    JobStatus,
    Quantity,
    Rule,
    RunPolicy,
    Source,
    Workers,
    immutable,
    never_taken_back,
    settled,
    short_name,
)
from espalier_api.meta import Model, ObjectMeta
from espalier_api.modelref import MAX_TOKENS, TEMPERATURE, ModelRef


class FeedbackModelRef(ModelRef):
    """The feedback judge: longer answers, a little warmer (the seed's 1200 tokens at 0.3)."""

    max_tokens: int = Field(default=1200, ge=16, le=8192, description=MAX_TOKENS)
    temperature: float = Field(default=0.3, ge=0, le=2, description=TEMPERATURE)


class Models(Model):
    """The two judges, asked at the same time."""

    code: ModelRef
    feedback: FeedbackModelRef
    fallback: tuple[Endpoint, ...] = Field(
        default=(), max_length=4, description="Asked, visibly, when no other server answers."
    )


class Execution(Model):
    """How submissions run. They never run on Macs."""

    sandbox: Literal["bubblewrap", "container", "gvisor", "none"] = Field(
        default="bubblewrap",
        description="What confines a submission: `bubblewrap` in the workers; `container`, a fresh pod for each from a"
        " warm pool; `gvisor`, such pods under the RuntimeClass gvisor; `none` runs them unconfined: only for bundles"
        " of your own.",
    )
    warm_pods: int = Field(
        default=2, ge=1, le=100, description="With `container` and `gvisor`: sandbox pods that run or wait at once."
    )
    kernel_timeout_seconds: int = Field(
        default=60, ge=1, le=600, description="Limit of one notebook's execution, in seconds, from its first cell on."
    )
    memory: Quantity = Field(default="1Gi", description="Data that one process of a submission may hold.")
    network: Literal["none"] = "none"

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!has(self.memory) || !isQuantity(self.memory)"
            " || (quantity(self.memory).compareTo(quantity('128Mi')) >= 0"
            " && quantity(self.memory).compareTo(quantity('1Ti')) <= 0)",
            message="execution.memory must be between 128Mi, which a kernel needs to start, and 1Ti",
        ),
    )


class PerformanceTargets(Model):
    """tok/s below which the condition SlowModel is set, and the band Excellent (the seed's figures)."""

    code: float = Field(default=30, ge=0)
    feedback: float = Field(default=35, ge=0)
    combined: float = Field(default=60, ge=0)


class Scale(Model):
    """The points of full marks."""

    points: float = Field(default=37.5, gt=0, le=10000)


class Performance(Model):
    """`performance` of the spec."""

    targets: PerformanceTargets = PerformanceTargets()


_IMMUTABLE = ("assignment", "submissions", "models", "scale", "execution")


class GradingJobSpec(Model):
    """The wish: which class, graded how."""

    assignment: Source = Field(
        description="A bundle: assignment.yaml, notebooks, tests, rubric (docs/how-to/write-a-bundle.md)."
    )
    submissions: Source = Field(description="A tar of one folder per student.")
    scale: Scale = Scale()
    models: Models
    execution: Execution = Execution()
    performance: Performance = Performance()
    workers: Workers = Workers()
    run_policy: RunPolicy = RunPolicy()

    rules: ClassVar[tuple[Rule, ...]] = (
        *(immutable(field, instead="apply a new GradingJob") for field in _IMMUTABLE),
        *(settled(field) for field in ("retries", "taskTimeoutSeconds")),
        never_taken_back(),
        Rule(
            rule="!has(self.workers) || !has(self.workers.pool) || !has(self.execution)"
            " || !has(self.execution.sandbox) || !(self.execution.sandbox in ['container', 'gvisor'])",
            message="execution.sandbox container and gvisor make pods for this job alone: leave out workers.pool",
        ),
    )


class SubmissionCounts(Model):
    """Submissions by outcome; `failed` is ours to mend (PlatformFault), `notGradable` is the submission's own fault."""

    total: int = 0
    graded: int = 0
    needs_review: int = 0
    not_gradable: int = 0
    failed: int = 0


class Scores(Model):
    """Points over the graded submissions, on the job's scale; `histogram` has ten equal bins from 0 to full marks.

    While the job runs there is only the mean; the report adds the rest.
    """

    mean: float
    median: float | None = None
    min: float | None = None
    max: float | None = None
    histogram: tuple[int, ...] = ()


class ModelPerformance(Model):
    """One judge's speed over the whole job."""

    tokens_per_second: float
    prompt_tokens: int
    output_tokens: int
    p50_seconds: float
    p95_seconds: float


class ModelsPerformance(Model):
    """Both judges."""

    code: ModelPerformance | None = None
    feedback: ModelPerformance | None = None


class PerformanceStatus(Model):
    """Speed of the job. `parallelEfficiency` is the fraction of the bound 1 + min/max of the two model times."""

    models: ModelsPerformance = ModelsPerformance()
    combined_tokens_per_second: float | None = None
    parallel_speedup: float | None = None
    parallel_efficiency: float | None = None
    submissions_per_hour: float | None = None
    band: Literal["Excellent", "Good", "BelowTarget"] | None = None
    shared_hardware: bool | None = Field(
        default=None,
        description="True where simulated Macs share one machine's cores: then the speed-up is only an overlap.",
    )


class GradingJobStatus(JobStatus):
    """The truth about one class."""

    submissions: SubmissionCounts | None = None
    scores: Scores | None = None
    performance: PerformanceStatus | None = None


class GradingJob(Model):
    """A GradingJob object."""

    kind: ClassVar[str] = "GradingJob"
    plural: ClassVar[str] = "gradingjobs"
    short: ClassVar[str] = "gj"
    scale: ClassVar[tuple[str, str, str] | None] = None
    selectable: ClassVar[tuple[str, ...]] = (".status.phase",)
    rules: ClassVar[tuple[Rule, ...]] = (short_name(50),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="PHASE", json_path=".status.phase"),
        Column(name="DONE", type="integer", json_path=".status.submissions.graded"),
        Column(name="REVIEW", type="integer", json_path=".status.submissions.needsReview"),
        Column(name="MEAN", type="number", json_path=".status.scores.mean"),
        Column(name="SUBM/H", type="number", json_path=".status.performance.submissionsPerHour"),
        Column(name="ETA", type="integer", json_path=".status.estimatedSecondsLeft"),
        Column(name="AGE", type="date", json_path=".metadata.creationTimestamp"),
    )

    metadata: ObjectMeta
    spec: GradingJobSpec
    status: GradingJobStatus = GradingJobStatus()
