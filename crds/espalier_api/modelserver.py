"""ModelServer (`ms`): models served over the OpenAI API, as native MLX processes on Macs or on Linux."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from espalier_api.common import Column, PodOverrides, Quantity, Rule, immutable, short_name
from espalier_api.meta import Condition, Model, ObjectMeta


class ServedModel(Model):
    """One model of a server."""

    name: str = Field(min_length=1, max_length=253, description="The name that requests use; may contain a slash.")
    source: str = Field(
        min_length=1,
        max_length=512,
        description="A folder or .gguf file on the node, `package://module/file.gguf` inside an installed Python "
        "package, or `random://tiny` (random weights, for tests).",
    )


class ModelServerSpec(Model):
    """The wish: which models, how many servers, how much may wait."""

    models: tuple[ServedModel, ...] = Field(min_length=1, max_length=8)
    replicas: int = Field(default=1, ge=0, le=64)
    placement: Literal["mlx", "linux"] = Field(
        default="mlx", description="`mlx`: Macs (virtual nodes); `linux`: Linux nodes, MLX's CPU backend."
    )
    max_concurrency: int = Field(default=8, ge=1, le=64, description="Requests decoded in one batch.")
    queue_limit: int = Field(default=32, ge=0, le=4096, description="Requests that may wait; one more is answered 429.")
    prompt_cache_bytes: Quantity = Field(default="512Mi", description="Bound of the cache of shared prompt prefixes.")
    pod: PodOverrides | None = None

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            rule="self.models.all(m, self.models.exists_one(n, n.name == m.name))",
            message="models: each name may stand only once; rename one",
        ),
        immutable("models", instead="delete the object, apply a new one"),
    )


class ModelEndpoint(Model):
    """One serving process."""

    url: str
    node: str
    pod: str
    ready: bool
    server_name: str | None = Field(default=None, description="The DNS name in its certificate.")


class ModelServerStatus(Model):
    """The truth: who serves, whether it makes tokens."""

    observed_generation: int | None = Field(default=None, ge=0)
    phase: str | None = None
    replicas: int | None = Field(default=None, ge=0)
    selector: str | None = Field(default=None, description="Label selector of the pods, for `/scale`.")
    endpoints: tuple[ModelEndpoint, ...] | None = None
    tokens_per_second: float | None = Field(
        default=None, ge=0, description="Decode speed over the last requests, summed over the endpoints."
    )
    conditions: tuple[Condition, ...] = Field(
        default=(), json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    )


class ModelServer(Model):
    """A ModelServer object."""

    kind: ClassVar[str] = "ModelServer"
    plural: ClassVar[str] = "modelservers"
    short: ClassVar[str] = "ms"
    scale: ClassVar[tuple[str, str, str] | None] = (".spec.replicas", ".status.replicas", ".status.selector")
    selectable: ClassVar[tuple[str, ...]] = (".status.phase", ".spec.placement")
    rules: ClassVar[tuple[Rule, ...]] = (short_name(59),)
    """`<job>-feedback` of the longest GradingJob."""
    columns: ClassVar[tuple[Column, ...]] = (
        Column(name="PHASE", json_path=".status.phase"),
        Column(name="READY", type="integer", json_path=".status.replicas"),
        Column(name="TOK/S", type="number", json_path=".status.tokensPerSecond"),
        Column(name="AGE", type="date", json_path=".metadata.creationTimestamp"),
    )

    metadata: ObjectMeta
    spec: ModelServerSpec
    status: ModelServerStatus = ModelServerStatus()
