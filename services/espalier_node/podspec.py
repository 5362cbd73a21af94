"""A pod's JSON as the frozen values that decisions need, and what in it this agent cannot honour (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from espalier_kube.cluster import Object
from espalier_node import targets

RestartPolicy = Literal["Always", "OnFailure", "Never"]

FILE_TYPES = frozenset({"configMap", "secret", "projected", "downwardAPI"})
"""Volumes of files that the agent writes and containers only read."""
VOLUME_TYPES = FILE_TYPES | {"emptyDir", "persistentVolumeClaim"}
_ABSENT = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "dnsConfig", "runtimeClassName")
"""Fields of a pod that a native process cannot have."""
_PROJECTIONS = frozenset({"configMap", "secret", "downwardAPI", "serviceAccountToken"})
_NOBODY = 65534


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """One container as the API wrote it (`raw`), with what is asked of it most."""

    name: str
    image: str
    raw: Mapping[str, Any] = field(repr=False)
    is_init: bool = False
    restart: RestartPolicy = "Always"

    @property
    def is_sidecar(self) -> bool:
        """An init container that stays (KEP-753)."""
        return self.is_init and self.restart == "Always"

    def probe(self, kind: Literal["startup", "readiness", "liveness"]) -> Mapping[str, Any] | None:
        return self.raw.get(f"{kind}Probe")


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod as this node shall run it."""

    uid: str
    name: str
    namespace: str
    init: tuple[ContainerSpec, ...]
    main: tuple[ContainerSpec, ...]
    restart_policy: RestartPolicy
    raw: Object = field(repr=False)

    @property
    def containers(self) -> tuple[ContainerSpec, ...]:
        """Init containers first, in their order."""
        return (*self.init, *self.main)

    @property
    def grace_s(self) -> float:
        """Seconds between SIGTERM and SIGKILL: the deletion's own, else the spec's."""
        wished = self.raw["metadata"].get("deletionGracePeriodSeconds")
        return float(self.raw["spec"].get("terminationGracePeriodSeconds", 30) if wished is None else wished)

    @property
    def is_deleting(self) -> bool:
        return "deletionTimestamp" in self.raw["metadata"]

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def parse(pod: Object) -> PodSpec:
    """Read a pod of the API server."""
    spec, metadata = pod["spec"], pod["metadata"]
    policy: RestartPolicy = spec.get("restartPolicy", "Always")
    init_policy: RestartPolicy = "Never" if policy == "Never" else "OnFailure"
    return PodSpec(
        uid=metadata["uid"], name=metadata["name"], namespace=metadata["namespace"],
        init=tuple(
            ContainerSpec(raw["name"], raw.get("image", ""), raw, is_init=True,
                          restart="Always" if raw.get("restartPolicy") == "Always" else init_policy)
            for raw in spec.get("initContainers") or ()
        ),
        main=tuple(
            ContainerSpec(raw["name"], raw.get("image", ""), raw, restart=policy)
            for raw in spec.get("containers") or ()
        ),
        restart_policy=policy,
        raw=pod,
    )


def unsupported(pod: PodSpec, container: ContainerSpec) -> str | None:
    """A sentence on what a native process cannot honour; None when all of it can be."""
    spec, raw = pod.raw["spec"], container.raw
    places = targets.problems(raw, _writable(spec))
    return next(chain(_pod_problems(spec), _container_problems(raw), _id_problems(pod, container), places), None)


def user_and_group(pod: PodSpec, container: ContainerSpec, default: int) -> tuple[int, int]:
    """The ids a container asks for, else the node's unprivileged ones."""
    own, shared = container.raw.get("securityContext") or {}, pod.raw["spec"].get("securityContext") or {}
    user = int(own.get("runAsUser", shared.get("runAsUser", default)))
    return user, int(own.get("runAsGroup", shared.get("runAsGroup", user)))


def volume_group(pod: PodSpec) -> int | None:
    """fsGroup: the group that owns the pod's volumes and that its containers belong to."""
    found = (pod.raw["spec"].get("securityContext") or {}).get("fsGroup")
    return None if found is None else int(found)


def further_groups(pod: PodSpec) -> tuple[int, ...]:
    """fsGroup and supplementalGroups."""
    security = pod.raw["spec"].get("securityContext") or {}
    wished = [security["fsGroup"]] if "fsGroup" in security else []
    return tuple(sorted({int(group) for group in (*wished, *(security.get("supplementalGroups") or ()))}))


def _pod_problems(spec: Mapping[str, Any]) -> Iterator[str]:
    for name in _ABSENT:
        if spec.get(name):
            yield f"spec.{name} is not available on this node: pods here are native processes; remove it"
    if spec.get("hostUsers") is False:
        yield "spec.hostUsers: false is not available on this node: remove it"
    for volume in spec.get("volumes") or ():
        yield from _volume_problems(volume)
    if (spec.get("securityContext") or {}).get("sysctls"):
        yield "spec.securityContext.sysctls is not available on this node: remove it"


def _volume_problems(volume: Mapping[str, Any]) -> Iterator[str]:
    kinds = set(volume) - {"name"}
    for kind in sorted(kinds - VOLUME_TYPES):
        known = ", ".join(sorted(VOLUME_TYPES))
        yield f"volume {volume['name']}: type {kind} is not available on this node; use one of {known}"
    for source in (volume.get("projected") or {}).get("sources") or ():
        for kind in sorted(set(source) - _PROJECTIONS):
            yield f"volume {volume['name']}: projection {kind} is not available on this node"
    if (volume.get("emptyDir") or {}).get("medium", ""):
        yield f"volume {volume['name']}: emptyDir medium {volume['emptyDir']['medium']} is not available on this node"


def _container_problems(raw: Mapping[str, Any]) -> Iterator[str]:
    name, security = raw["name"], raw.get("securityContext") or {}
    if any(port.get("hostPort") for port in raw.get("ports") or ()):
        yield f"container {name}: hostPort is not available on this node; bind to status.podIP"
    if security.get("privileged"):
        yield f"container {name}: privileged is not available on this node"
    if (security.get("capabilities") or {}).get("add"):
        yield f"container {name}: capabilities cannot be added on this node"
    if raw.get("volumeDevices"):
        yield f"container {name}: volumeDevices are not available on this node"
    if raw.get("tty") or raw.get("stdin"):
        yield f"container {name}: stdin and tty are not available on this node"
    for mount in raw.get("volumeMounts") or ():
        if mount.get("mountPropagation", "None") != "None":
            yield f"container {name}: mountPropagation {mount['mountPropagation']} is not available on this node"


def _id_problems(pod: PodSpec, container: ContainerSpec) -> Iterator[str]:
    """What a pod and its container say together counts; a node's own default is never root's."""
    user, group = user_and_group(pod, container, default=_NOBODY)
    asked = {"runAsUser": user, "runAsGroup": group, "fsGroup": volume_group(pod)}
    for name in (name for name, number in asked.items() if number == 0):
        yield f"container {container.name}: {name} 0 is not available on this node; leave it out or choose another"
    if 0 in further_groups(pod):
        yield f"container {container.name}: supplementalGroups 0 is not available on this node; leave it out"


def _writable(spec: Mapping[str, Any]) -> frozenset[str]:
    """Names of the volumes that containers write to."""
    return frozenset(volume["name"] for volume in spec.get("volumes") or () if not FILE_TYPES & set(volume))
