"""A container's environment and command (pure): env, envFrom, field and resource references, `$(VAR)`."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from espalier_kit.errors import Permanent
from espalier_kube.cluster import Object
from espalier_node.podspec import ContainerSpec, PodSpec

CONFIG_ERROR = "CreateContainerConfigError"
_REFERENCE = re.compile(r"\$\$|\$\(([-._a-zA-Z][-._a-zA-Z0-9]*)\)")
_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['([^']+)'\]")
_SUFFIXES: dict[str, Decimal] = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    **{s: Decimal(10) ** (3 * i) for i, s in enumerate("MGTPE", 2)},
    **{f"{s}i": Decimal(1024) ** i for i, s in enumerate("KMGTPE", 1)},
}


@dataclass(frozen=True, slots=True)
class Situation:
    """What only the node knows of a pod."""

    pod_ip: str
    host_ip: str
    node_name: str
    allocatable: Mapping[str, str]
    """The node's own, which limits default to."""


@dataclass(frozen=True, slots=True)
class Sources:
    """ConfigMaps and Secrets of the pod's namespace by name; None where the object does not exist."""

    config_maps: Mapping[str, Object | None]
    secrets: Mapping[str, Object | None]


def references(container: ContainerSpec) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and Secrets that a container's environment needs."""
    maps, secrets = set(), set()
    for source in container.raw.get("envFrom") or ():
        if "configMapRef" in source:
            maps.add(source["configMapRef"]["name"])
        if "secretRef" in source:
            secrets.add(source["secretRef"]["name"])
    for variable in container.raw.get("env") or ():
        origin = variable.get("valueFrom") or {}
        if "configMapKeyRef" in origin:
            maps.add(origin["configMapKeyRef"]["name"])
        if "secretKeyRef" in origin:
            secrets.add(origin["secretKeyRef"]["name"])
    return maps, secrets


def build(
    pod: PodSpec, container: ContainerSpec, *, base: Mapping[str, str], sources: Sources, situation: Situation
) -> dict[str, str]:
    """`base` below envFrom below env; raises `Permanent` (reason CreateContainerConfigError) naming what is missing."""
    values = dict(base)
    for entry in container.raw.get("envFrom") or ():
        values.update(_from_object(entry, sources))
    for variable in container.raw.get("env") or ():
        if "valueFrom" in variable:
            value = _from_reference(variable, pod, container, sources, situation)
            if value is not None:
                values[variable["name"]] = value
        else:
            values[variable["name"]] = expand(variable.get("value") or "", values)
    return values


def command(container: ContainerSpec, values: Mapping[str, str], default: tuple[str, ...]) -> tuple[str, ...]:
    """`command` and `args` with references expanded; without `command`, the image's own."""
    entry = [expand(word, values) for word in container.raw.get("command") or ()]
    return (*(entry or default), *(expand(word, values) for word in container.raw.get("args") or ()))


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value or stays; `$$(NAME)` is a literal `$(NAME)`."""
    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return _REFERENCE.sub(one, text)


def field_value(path: str, pod: PodSpec, situation: Situation) -> str:
    """A downward API field; raises `Permanent` on one that does not exist."""
    metadata, spec = pod.raw["metadata"], pod.raw["spec"]
    if match := _SUBSCRIPT.fullmatch(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    known: Mapping[str, Callable[[], str]] = {
        "metadata.name": lambda: pod.name,
        "metadata.namespace": lambda: pod.namespace,
        "metadata.uid": lambda: pod.uid,
        "metadata.labels": lambda: _pairs(metadata.get("labels")),
        "metadata.annotations": lambda: _pairs(metadata.get("annotations")),
        "spec.nodeName": lambda: situation.node_name,
        "spec.serviceAccountName": lambda: str(spec.get("serviceAccountName", "default")),
        "status.hostIP": lambda: situation.host_ip,
        "status.hostIPs": lambda: situation.host_ip,
        "status.podIP": lambda: situation.pod_ip,
        "status.podIPs": lambda: situation.pod_ip,
    }
    if path not in known:
        raise Permanent(f"fieldRef {path} is not a field that can be read here", reason=CONFIG_ERROR)
    return known[path]()


def resource_value(reference: Mapping[str, Any], containers: Iterable[ContainerSpec], situation: Situation) -> str:
    """A container's request or limit, divided by `divisor` and rounded up."""
    name = reference.get("containerName")
    container = next((c for c in containers if name in (None, "", c.name)), None)
    section, _, resource = str(reference["resource"]).partition(".")
    if container is None or section not in ("limits", "requests"):
        sentence = f"resourceFieldRef {reference['resource']} of container {name} does not exist"
        raise Permanent(sentence, reason=CONFIG_ERROR)
    resources = container.raw.get("resources") or {}
    found = (resources.get(section) or {}).get(resource)
    if found is None:
        found = (resources.get("limits") or {}).get(resource) or situation.allocatable.get(resource, "0")
    divisor = str(reference.get("divisor") or "1")
    return str(math.ceil(quantity(str(found)) / (quantity(divisor) or 1)))


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity: `250m`, `1Gi`, `2e3`."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?)([numkKMGTPE]?i?)", text)
    if match is None or match[2] not in _SUFFIXES:
        raise Permanent(f"{text!r} is not a quantity", reason=CONFIG_ERROR)
    return Decimal(match[1]) * _SUFFIXES[match[2]]


def secret_data(secret: Object) -> dict[str, bytes]:
    """A Secret's bytes."""
    return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def config_map_data(config_map: Object) -> dict[str, bytes]:
    """A ConfigMap's bytes, text and binary keys together."""
    binary = {key: base64.b64decode(value) for key, value in (config_map.get("binaryData") or {}).items()}
    return {**{key: value.encode() for key, value in (config_map.get("data") or {}).items()}, **binary}


def _from_object(entry: Mapping[str, Any], sources: Sources) -> dict[str, str]:
    prefix = entry.get("prefix") or ""
    if "configMapRef" in entry:
        data = _data("ConfigMap", entry["configMapRef"], sources)
    else:
        data = _data("Secret", entry["secretRef"], sources)
    return {prefix + key: value.decode(errors="replace") for key, value in (data or {}).items()}


def _from_reference(
    variable: Mapping[str, Any], pod: PodSpec, container: ContainerSpec, sources: Sources, situation: Situation
) -> str | None:
    origin = variable["valueFrom"]
    if "fieldRef" in origin:
        return field_value(origin["fieldRef"]["fieldPath"], pod, situation)
    if "resourceFieldRef" in origin:
        reference = {"containerName": container.name, **origin["resourceFieldRef"]}
        return resource_value(reference, pod.containers, situation)
    for kind, word in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if word in origin:
            return _key(kind, origin[word], sources)
    raise Permanent(f"env {variable['name']}: {', '.join(origin)} is not available on this node", reason=CONFIG_ERROR)


def _key(kind: str, reference: Mapping[str, Any], sources: Sources) -> str | None:
    data = _data(kind, reference, sources)
    if data is None:
        return None
    if reference["key"] in data:
        return data[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    sentence = f"{kind} {reference['name']} has no key {reference['key']}: add it, and the container starts"
    raise Permanent(sentence, reason=CONFIG_ERROR)


def _data(kind: str, reference: Mapping[str, Any], sources: Sources) -> dict[str, bytes] | None:
    found = (sources.config_maps if kind == "ConfigMap" else sources.secrets).get(reference["name"])
    if found is not None:
        return config_map_data(found) if kind == "ConfigMap" else secret_data(found)
    if reference.get("optional"):
        return None
    raise Permanent(
        f"{kind} {reference['name']} does not exist: create it, and the container starts", reason=CONFIG_ERROR
    )


def _pairs(values: Mapping[str, str] | None) -> str:
    """As the downward API writes labels: one `key="escaped value"` a line, sorted."""
    return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted((values or {}).items()))
