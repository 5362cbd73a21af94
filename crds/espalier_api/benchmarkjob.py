"""BenchmarkJob (`bj`): load and questions for one server or two, or any workflow of tasks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from espalier_api.benchmarkfigures import AccuracyFigures, ReportFile, TargetFigures, Validity
from espalier_api.benchmarkload import Accuracy, Dataset, Gate, Limits, Load, Price, Slo
from espalier_api.common import (
    KEEPS_UNKNOWN,
    Column,
    JobStatus,
    Rule,
    RunPolicy,
    Workers,
    never_taken_back,
    settled,
    short_name,
)
from espalier_api.meta import Model, ObjectMeta
from espalier_api.modelref import ModelRef

TaskName = Annotated[str, Field(min_length=1, max_length=63)]
Tag = Annotated[str, Field(min_length=1, max_length=63)]
Payload = Annotated[dict[str, Any], Field(json_schema_extra={KEEPS_UNKNOWN: True})]


class Target(ModelRef):
    """A server to measure."""

    name: str | None = Field(default=None, min_length=1, max_length=63, description="In reports; target-0, target-1.")
    max_tokens: int = Field(default=256, ge=1, le=8192, description="Bound of one answer, in tokens.")
    temperature: float = Field(default=0, ge=0, le=2, description="0 always takes the likeliest token.")
    price: Price | None = None


class Generators(Workers):
    """The workers that send the load and ask the questions, in the job's namespace."""

    replicas: int = Field(default=1, ge=1, le=100, description="They share one schedule and start together.")
    capacity: int = Field(default=1, ge=1, le=64, description="Tasks that one runs at once; load wants 1.")
    placement: Literal["linux", "mlx"] = Field(default="linux", description="`mlx`: on Macs, which are virtual nodes.")

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!has(self.pool)"
            " || (self.replicas == 1 && self.capacity == 1 && !has(self.pod) && self.placement == 'linux')",
            message="with generators.pool leave out replicas, capacity, placement and pod: the pool has its own",
        ),
        Rule(
            rule="has(self.pool) ? has(oldSelf.pool) && self.pool == oldSelf.pool : !has(oldSelf.pool)",
            message="spec.generators.pool cannot change after creation: apply a new object",
        ),
    )


class AnswerExecution(Model):
    """How answers run that have to, to be scored. They never run on Macs, and never unconfined."""

    sandbox: Literal["bubblewrap", "container", "gvisor"] | None = Field(
        default=None,
        description="What confines an answer: `bubblewrap` in the generators; `container`, a container of its own"
        " beside each, emptied between two answers; `gvisor`, the same with the pod on gVisor. If not said: `container`"
        " where Linux nodes run containers, else `bubblewrap`.",
    )


class TaskEdge(Model):
    """A task that must come first."""

    task: TaskName
    when: Literal["done", "finished"] = Field(default="done", description="`finished`: however it ended.")


class WorkflowTask(Model):
    """One task of any executor."""

    name: TaskName
    type: str = Field(min_length=1, max_length=128, description="The executor's name.")
    payload: Payload | None = Field(default=None, description="What the executor reads.")
    required_tags: tuple[Tag, ...] = Field(default=(), max_length=16, description="All of which its worker has.")
    resources: Annotated[dict[str, float], Field(max_length=16)] | None = Field(
        default=None, description="What it takes of its worker's."
    )
    depends_on: tuple[TaskEdge, ...] = Field(default=(), max_length=64)
    timeout_seconds: int | None = Field(default=None, ge=1, le=3600, description="Instead of the runPolicy's.")
    retries: int | None = Field(default=None, ge=0, le=20, description="Instead of the runPolicy's.")
    cache: Literal["none", "read-write"] = Field(default="none", description="An equal task's result answers for it.")


class TemplateParameter(Model):
    """One value for a template."""

    name: TaskName
    value: str = Field(max_length=4096)


class TemplateRef(Model):
    """Tasks that the coordinator keeps under a name: a job template of this namespace."""

    name: str = Field(min_length=1, max_length=253)
    parameters: tuple[TemplateParameter, ...] = Field(default=(), max_length=64)


_IMMUTABLE = (
    "targets", "load", "dataset", "accuracy", "execution", "slo", "gate", "limits", "cache", "tasks", "templateRef",
)  # fmt: skip
_SANDBOX = "has(self.execution) && has(self.execution.sandbox)"


_OF_MEASURES = ("dataset", "slo", "limits")


def _unchanged(field: str) -> str:
    """CEL: equal, or absent as before."""
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


class BenchmarkJobSpec(Model):
    """The wish: what is measured how, or which tasks run."""

    targets: tuple[Target, ...] = Field(
        default=(),
        max_length=2,
        description="Servers: one; or baseline and candidate, run in turns on the same questions. Tasks find them as "
        "endpoints with roles target-0 and target-1.",
    )
    load: Load | None = None
    dataset: Dataset | None = None
    accuracy: Accuracy | None = None
    execution: AnswerExecution | None = None
    slo: Slo | None = None
    gate: tuple[Gate, ...] = Field(default=(), max_length=16, description="What decides the condition Passed.")
    limits: Limits | None = None
    cache: Literal["none", "read-write"] = Field(
        default="none", description="Answers to accuracy questions may come from an equal earlier run; never to load."
    )
    tasks: tuple[WorkflowTask, ...] = Field(
        default=(), max_length=100,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
    )  # fmt: skip
    template_ref: TemplateRef | None = None
    tags: tuple[Tag, ...] = Field(default=(), max_length=16, description="To list jobs by, at the coordinator.")
    generators: Generators = Generators()
    run_policy: RunPolicy = RunPolicy()

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule=" && ".join(map(_unchanged, _IMMUTABLE)),
            message=f"{', '.join(_IMMUTABLE)} cannot change after creation: apply a new BenchmarkJob",
        ),
        *(settled(field) for field in ("retries", "taskTimeoutSeconds")),
        never_taken_back(),
        Rule(
            rule="[has(self.load) || has(self.accuracy), self.tasks.size() > 0, has(self.templateRef)]"
            ".filter(x, x).size() == 1",
            message="a BenchmarkJob measures (load, accuracy), runs tasks, or those of a templateRef: say one of them",
        ),
        Rule(
            rule="self.targets.size() > 0 || !(has(self.load) || has(self.accuracy))",
            message="load and accuracy are about targets: name one, or two to compare",
        ),
        Rule(
            rule="has(self.load) || has(self.accuracy) || (self.gate.size() == 0 && !("
            + " || ".join(f"has(self.{field})" for field in _OF_MEASURES) + "))",
            message=f"{', '.join(_OF_MEASURES)} and gate belong to load or accuracy: add one of them, or remove these",
        ),
        Rule(
            rule="!has(self.load) || !has(self.load.blocks) || self.targets.size() == 2",
            message="load.blocks is for two targets, which are run in turns",
        ),
        Rule(
            rule="!has(self.load) || self.targets.size() < 2 || self.load.pattern != 'concurrency'"
            " || (has(self.load.requests) && !has(self.load.durationSeconds))",
            message="two targets under concurrency end after load.requests, not a time: the faster would be asked more",
        ),
        Rule(
            rule="self.generators.placement == 'linux' || !has(self.accuracy)"
            " || !self.accuracy.packs.exists(p, p.name == 'humaneval')",
            message="humaneval runs what the model wrote, and that never runs on Macs: use placement linux",
        ),
        Rule(
            rule=f"!({_SANDBOX}) || has(self.accuracy) || !has(self.load)",
            message="execution.sandbox confines answers, and load alone has none: add accuracy, or remove execution",
        ),
        Rule(
            rule=f"!({_SANDBOX}) || self.generators.placement == 'linux'",
            message="what a model wrote never runs on Macs: remove execution.sandbox, or use placement linux",
        ),
        Rule(
            rule=f"!({_SANDBOX}) || self.execution.sandbox == 'bubblewrap' || !has(self.generators.pool)",
            message="execution.sandbox container and gvisor make pods for this job alone: leave out generators.pool",
        ),
        Rule(
            rule=f"!({_SANDBOX}) || self.execution.sandbox != 'gvisor' || !has(self.load)",
            message="gVisor's network is not the node's, and would be measured: put load and execution.sandbox gvisor"
            " into two jobs",
        ),
        Rule(
            rule="self.generators.placement == oldSelf.generators.placement"
            " && (!has(self.load) || self.generators.replicas == oldSelf.generators.replicas)",
            message="generators cannot change after creation, they start together: apply a new BenchmarkJob",
        ),
    )


class Headline(Model):
    """What `kubectl get bj` shows: the first target's."""

    ttft_p50_ms: float | None = None
    output_tokens_per_second: float | None = None
    goodput_per_second: float | None = None


class TaskResult(Model):
    """How one task of a workflow ended; those that nobody depends on, and failed ones."""

    name: str
    state: str
    reason: str | None = None
    message: str | None = None
    value: str | None = Field(default=None, description="JSON, if it is short.")


class BenchmarkJobStatus(JobStatus):
    """The truth about one run."""

    headline: Headline | None = None
    targets: tuple[TargetFigures, ...] | None = None
    accuracy: tuple[AccuracyFigures, ...] | None = None
    sandbox: str | None = Field(
        default=None, description="What confines answers that run: as the spec says, or as the nodes were."
    )
    validity: Validity | None = None
    min_detectable_effect: float | None = Field(
        default=None, description="Two targets: the smallest relative difference of e2e that this run would find."
    )
    cost: float | None = None
    files: tuple[ReportFile, ...] | None = None
    results: tuple[TaskResult, ...] | None = None


class BenchmarkJob(Model):
    """A BenchmarkJob object."""

    kind: ClassVar[str] = "BenchmarkJob"
    plural: ClassVar[str] = "benchmarkjobs"
    short: ClassVar[str] = "bj"
    scale: ClassVar[tuple[str, str, str] | None] = None
    selectable: ClassVar[tuple[str, ...]] = (".status.phase",)
    rules: ClassVar[tuple[Rule, ...]] = (short_name(50),)
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="PHASE", json_path=".status.phase"),
        Column(name="DONE", type="integer", json_path=".status.progressPercent"),
        Column(name="P50 TTFT", type="number", json_path=".status.headline.ttftP50Ms"),
        Column(name="OUT TOK/S", type="number", json_path=".status.headline.outputTokensPerSecond"),
        Column(name="GOODPUT", type="number", json_path=".status.headline.goodputPerSecond"),
        Column(name="VALID", json_path=".status.validity.verdict"),
        Column(name="ETA", type="integer", json_path=".status.estimatedSecondsLeft"),
        Column(name="AGE", type="date", json_path=".metadata.creationTimestamp"),
    )

    metadata: ObjectMeta
    spec: BenchmarkJobSpec
    status: BenchmarkJobStatus = BenchmarkJobStatus()
