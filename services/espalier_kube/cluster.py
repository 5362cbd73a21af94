"""The interface that operator, node agent, coordinator and CLI see of a Kubernetes API server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What is needed to build an object's path."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version of the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


POD = Kind("", "v1", "Pod", "pods")
NODE = Kind("", "v1", "Node", "nodes", namespaced=False)
NAMESPACE = Kind("", "v1", "Namespace", "namespaces", namespaced=False)
EVENT = Kind("", "v1", "Event", "events")
SECRET = Kind("", "v1", "Secret", "secrets")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SERVICE_ACCOUNT = Kind("", "v1", "ServiceAccount", "serviceaccounts")
PERSISTENT_VOLUME = Kind("", "v1", "PersistentVolume", "persistentvolumes", namespaced=False)
PERSISTENT_VOLUME_CLAIM = Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
RUNTIME_CLASS = Kind("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses", namespaced=False)
JOB = Kind("batch", "v1", "Job", "jobs")
DEPLOYMENT = Kind("apps", "v1", "Deployment", "deployments")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies")
LEASE = Kind("coordination.k8s.io", "v1", "Lease", "leases")
CSR = Kind("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", namespaced=False)
API_SERVICE = Kind("apiregistration.k8s.io", "v1", "APIService", "apiservices", namespaced=False)
TOKEN_REVIEW = Kind("authentication.k8s.io", "v1", "TokenReview", "tokenreviews", namespaced=False)
GRADING_JOB = Kind("espalier.dev", "v1alpha1", "GradingJob", "gradingjobs")
BENCHMARK_JOB = Kind("espalier.dev", "v1alpha1", "BenchmarkJob", "benchmarkjobs")
BENCHMARK_COMPARISON = Kind("espalier.dev", "v1alpha1", "BenchmarkComparison", "benchmarkcomparisons")
MODEL_SERVER = Kind("espalier.dev", "v1alpha1", "ModelServer", "modelservers")


@dataclass(frozen=True, slots=True)
class Listing:
    """A list and the position from which a watch goes on."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change, or a bookmark whose object carries only the position."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object


class Cluster(Protocol):
    """A Kubernetes API server. Raises the errors of `espalier_kit.errors`: NotFound, Conflict, Forbidden, Gone,
    Permanent (the server refuses the content; the message is the server's), Retryable (network, 429, 5xx)."""

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> Object: ...

    async def list(
        self, kind: Kind, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
    ) -> Listing:
        """All objects; `labels` and `fields` are selectors evaluated by the server. Items carry apiVersion and kind."""
        ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: str | None = None,
        fields: str | None = None,
        timeout_s: int = 240,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes after `resource_version` with bookmarks; ends when the server closes it. Raises `Gone` on 410."""
        ...

    async def create(self, obj: Object) -> Object:
        """POST; `Conflict` with reason AlreadyExists when the name is taken. Also for reviews, which only answer."""
        ...

    async def replace(self, obj: Object, *, subresource: str | None = None) -> Object:
        """PUT with the object's resourceVersion; `Conflict` when somebody wrote since."""
        ...

    async def apply(self, obj: Object, *, subresource: str | None = None, force: bool = True) -> Object:
        """Server-side apply as field manager `espalier`."""
        ...

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str | None,
        patch: Mapping[str, Any],
        *,
        subresource: str | None = None,
        strategic: bool = False,
    ) -> Object:
        """Merge patch, or strategic merge patch."""
        ...

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str | None = None,
        *,
        uid: str | None = None,
        grace_s: int | None = None,
        propagation: Literal["Background", "Foreground", "Orphan"] = "Background",
    ) -> None:
        """Delete; with `uid` only that very object. Deleting what is gone is success."""
        ...

    async def create_token(
        self,
        service_account: str,
        namespace: str,
        *,
        audience: str | None,
        expiration_s: int,
        bound_pod: tuple[str, str] | None = None,
    ) -> tuple[str, str]:
        """TokenRequest: the token and its end (RFC 3339). `bound_pod` is (name, uid)."""
        ...

    async def logs(self, name: str, namespace: str, *, container: str | None = None, tail: int | None = None) -> str:
        """A pod's log."""
        ...

    async def close(self) -> None: ...
