"""The chart's shared worker pools, typed: chart values `poolDefaults` and `pools`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from espalier_api.common import Quantity, Toleration
from espalier_api.meta import Model

Word = Annotated[str, Field(pattern=r"^[^,\s]+$", max_length=128)]


class Amounts(Model):
    """CPU and memory."""

    cpu: Quantity = Field(default="1", description="CPU.")
    memory: Quantity = Field(default="1Gi", description="Memory.")


class PoolResources(Model):
    """What one worker pod is promised, and what it may take."""

    requests: Amounts = Field(default=Amounts(), description="What the scheduler promises.")
    limits: Amounts = Field(default=Amounts(), description="What it may take.")


class Autoscaling(Model):
    """How many workers a pool has."""

    mode: Literal["external-metrics", "keda", "cpu", "off"] = Field(
        default="off",
        description="external-metrics: an HPA on the work that waits, which the coordinator tells the API server; "
        "keda: the same by a ScaledObject, where KEDA is installed; cpu: an HPA on CPU use; off: `replicas`.",
    )
    min: int = Field(default=1, ge=1, le=1000, description="Fewest workers.")
    max: int = Field(default=10, ge=1, le=1000, description="Most workers.")
    target_per_worker: int = Field(
        default=16, ge=1, le=1_000_000,
        description="Waiting and running tasks per worker that are wanted (external-metrics, keda): what one worker "
        "clears within the time in which a task shall be done.",
    )
    cpu_percent: int = Field(
        default=80, ge=1, le=1000, description="Mean CPU use, of what is requested, that is wanted (cpu)."
    )
    scale_down_seconds: int = Field(
        default=300, ge=0, le=3600, description="How long less work must have been enough before workers leave."
    )


class PoolOptions(Model):
    """What a pool has unless it says otherwise: workers that all jobs with `workers.pool` share."""

    replicas: int = Field(default=1, ge=0, le=1000, description="Workers, where autoscaling.mode is off.")
    capacity: int = Field(default=4, ge=1, le=64, description="Tasks that one worker runs at once.")
    prefetch: int = Field(default=2, ge=0, le=64, description="Tasks that it holds ready beyond that.")
    drain_seconds: int = Field(
        default=20, ge=0, le=3600, description="What running tasks get when a worker shall go; the rest goes back."
    )
    max_unavailable: int = Field(default=1, ge=1, le=1000, description="Of its PodDisruptionBudget.")
    tags: tuple[Word, ...] = Field(default=(), description="What its workers offer to tasks that require it.")
    types: tuple[Word, ...] = Field(default=(), description="Task types that they take; empty: all.")
    resources: PoolResources = Field(default=PoolResources(), description="Of one worker's pod.")
    autoscaling: Autoscaling = Field(default=Autoscaling(), description="How many workers there are.")
    executors: str = Field(
        default="", max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$",
        description="A ConfigMap of the release's namespace with executors of your own: Python modules, and "
        "entry_points.txt with a section [espalier.executors]. Empty: those of the image.",
    )
    env: dict[str, str] = Field(default={}, description="Further environment, such as an executor's.")
    node_selector: dict[str, str] = Field(
        default={"kubernetes.io/os": "linux"}, description="Labels of the nodes they may be on."
    )
    tolerations: tuple[Toleration, ...] = Field(default=(), description="Taints they tolerate.")
    priority_class_name: str = Field(default="", max_length=253, description="Of their pods; empty: none.")
    pod_labels: dict[str, str] = Field(default={}, description="Further labels of their pods.")
    pod_annotations: dict[str, str] = Field(default={}, description="Further annotations of their pods.")


class Pool(PoolOptions):
    """One pool: what it leaves out is as in `poolDefaults`."""

    name: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=40, description="What jobs name as workers.pool."
    )
