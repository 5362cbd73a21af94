"""Pieces that several kinds share: run policy, sources, model references, workers, counts."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from espalier_api.meta import Condition, Model

SAYS = "x-espalier-says"
"""Key beside a `pattern`: the sentence for a value that does not match it. The CRD turns both into one CEL rule."""

Quantity = Annotated[
    str,
    Field(
        pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$",
        max_length=32,
        json_schema_extra={SAYS: "write a Kubernetes quantity such as 500m, 2 or 2Gi"},
    ),
]
"""A Kubernetes quantity such as `500m` or `2Gi`."""

LabelMap = Annotated[dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)]
AnnotationMap = Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=32)]
"""Bounded, as the API server must know the cost of comparing them."""

KEEPS_UNKNOWN = "x-kubernetes-preserve-unknown-fields"
"""Key that lets an object hold any JSON: only for what an executor alone understands."""

MAX_TASK_SECONDS = 3600
"""Nothing a task of ours does takes an hour; a larger limit is a typing error (research/grading.md §2)."""


class Rule(Model):
    """One CEL rule (`x-kubernetes-validations`): the sentence says what to change."""

    rule: str
    message: str


def immutable(field: str, *, instead: str) -> Rule:
    """A transition rule for a class: `field` keeps its first value; `instead` says what a person does."""
    return Rule(
        rule=f"self.{field} == oldSelf.{field}", message=f"spec.{field} cannot change after creation: {instead}"
    )


def settled(field: str) -> Rule:
    """`runPolicy.{field}` is handed over with the tasks."""
    return Rule(
        rule=f"self.runPolicy.{field} == oldSelf.runPolicy.{field}",
        message=f"spec.runPolicy.{field} cannot change after creation: apply a new object",
    )


def never_taken_back() -> Rule:
    """A cancelled job stays cancelled."""
    return Rule(
        rule="!(has(oldSelf.runPolicy) && oldSelf.runPolicy.cancel)"
        " || (has(self.runPolicy) && self.runPolicy.cancel)",
        message="runPolicy.cancel cannot be taken back: apply a new object",
    )


def short_name(longest: int) -> Rule:
    """A rule for a whole object: what is named after it (pods, hosts, labels: 63 characters) must fit too."""
    return Rule(
        rule=f"self.metadata.name.matches(r'^[a-z0-9]([-a-z0-9]{{0,{longest - 2}}}[a-z0-9])?$')",
        message=f"metadata.name may have at most {longest} lower-case letters, digits and hyphens: its pods bear it",
    )


class RunPolicy(Model):
    """How a job runs: pausing, stopping, order, patience."""

    suspend: bool = Field(default=False, description="Pause: running tasks finish, no new one starts, workers go.")
    cancel: bool = Field(default=False, description="Stop for good and keep what is done; the phase becomes Cancelled.")
    priority: int = Field(
        default=0, ge=-1000, le=1000, description="Higher runs first; equal runs first come, first served."
    )
    retries: int = Field(
        default=3, ge=0, le=20, description="Attempts after the first that an infrastructure fault may cost a task."
    )
    task_timeout_seconds: int = Field(
        default=600, ge=1, le=MAX_TASK_SECONDS, description="Deadline of one attempt of one task, in seconds."
    )
    active_deadline_seconds: int | None = Field(
        default=None, ge=1, description="End the job as Failed this long after its start, pauses included, in seconds."
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None, ge=0, description="Delete the object this long after its end, in seconds."
    )


class Source(Model):
    """Bytes by reference."""

    uri: str = Field(
        min_length=1,
        max_length=512,
        pattern=r"^(artifact://[0-9a-f]{64}|configmap://[a-z0-9.-]+/[A-Za-z0-9._-]+)$",
        description="`artifact://<sha256>` as `espalier push` printed it, or `configmap://name/key` of this namespace.",
        json_schema_extra={
            SAYS: "a source is artifact://<sha256> as `espalier push PATH` prints it, or configmap://name/key"
        },
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        max_length=64,
        description="Refuse any other content.",
        json_schema_extra={SAYS: "sha256 is 64 lower-case hexadecimal digits, as `sha256sum` prints them"},
    )


class EnvVar(Model):
    """A plain environment variable."""

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        max_length=128,
        json_schema_extra={SAYS: "an environment variable's name is letters, digits and _, and starts with no digit"},
    )
    value: str = Field(default="", max_length=4096)

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!self.name.startsWith('ESPALIER_')",
            message="variables that start with ESPALIER_ are the programs' own settings: choose another name",
        ),
    )


class Toleration(Model):
    """A pod's toleration of a node taint."""

    key: str = Field(max_length=316)
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = Field(default=None, max_length=63)
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Resources(Model):
    """CPU and memory of one pod; limits equal requests."""

    cpu: Quantity | None = None
    memory: Quantity | None = None


class PodOverrides(Model):
    """The few pod fields a user may set."""

    node_selector: LabelMap | None = None
    tolerations: tuple[Toleration, ...] | None = Field(default=None, max_length=16)
    resources: Resources | None = None
    labels: LabelMap | None = None
    annotations: AnnotationMap | None = None
    env: tuple[EnvVar, ...] | None = Field(default=None, max_length=64)


class Workers(Model):
    """The workers of one job: an Indexed Job of its own in the object's namespace, or a shared pool; on Linux nodes."""

    replicas: int = Field(default=1, ge=1, le=100, description="Worker pods.")
    capacity: int = Field(default=4, ge=1, le=64, description="Tasks that one worker runs at once.")
    pod: PodOverrides | None = None
    pool: str | None = Field(
        default=None,
        min_length=1,
        max_length=40,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        description="The chart's shared worker pool that runs the job, instead of workers of its own.",
        json_schema_extra={SAYS: "a pool's name is lower-case letters, digits and hyphens, as in chart value pools"},
    )

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!has(self.pool) || (self.replicas == 1 && self.capacity == 4 && !has(self.pod))",
            message="with workers.pool leave out replicas, capacity and pod: the pool has its own",
        ),
        Rule(
            rule="has(self.pool) ? has(oldSelf.pool) && self.pool == oldSelf.pool : !has(oldSelf.pool)",
            message="spec.workers.pool cannot change after creation: apply a new object",
        ),
    )


class SecretKeyRef(Model):
    """One key of a Secret of the same namespace."""

    name: str = Field(min_length=1, max_length=253)
    key: str = Field(min_length=1, max_length=253)


class Endpoint(Model):
    """Any OpenAI-compatible server: Ollama, vLLM, LM Studio, llama.cpp."""

    url: str = Field(
        pattern=r"^https?://[^\s]+$",
        max_length=512,
        description="Base address, without /v1.",
        json_schema_extra={SAYS: "an endpoint's url starts with http:// or https:// and has no spaces"},
    )
    model: str = Field(min_length=1, max_length=253)
    api_key_secret_ref: SecretKeyRef | None = None
    ca_secret_ref: SecretKeyRef | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="!self.url.endsWith('/v1') && !self.url.endsWith('/v1/')",
            message="write the endpoint's url without /v1: it is added to every request",
        ),
    )


class TaskCounts(Model):
    """Tasks of a job by state, as the coordinator counts them."""

    pending: int = 0
    running: int = 0
    done: int = 0
    failed: int = 0


class JobStatus(Model):
    """What the status of every kind has. `phase` is derived from the conditions, never the other way round."""

    observed_generation: int | None = Field(default=None, ge=0)
    phase: str | None = None
    conditions: tuple[Condition, ...] = Field(
        default=(), json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )
    start_time: datetime | None = None
    completion_time: datetime | None = None
    tasks: TaskCounts | None = None
    progress_percent: int | None = Field(default=None, ge=0, le=100)
    estimated_seconds_left: int | None = Field(default=None, ge=0)
    result_uri: str | None = Field(default=None, description="The artifact index of the job's reports.")


class Column(Model):
    """A `kubectl get` column."""

    name: str
    type: Literal["string", "integer", "number", "date"] = "string"
    json_path: str
    priority: int = 0
