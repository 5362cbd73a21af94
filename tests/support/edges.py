"""Who talks to whom: the declared edges of docs/reference/network.md, and the ends they are between."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from espalier_kube.netpol import Direction, End, Flow, Pod
from tests.support.charts import CHART, NAMESPACE, find
from tests.support.controlplane import ROOT

PAGE = ROOT / "docs/reference/network.md"
SAME = " of its namespace"
COURSES = ("course-a", "course-b")
UNDECLARED_PORT = 4444


@dataclass(frozen=True, slots=True)
class Edge:
    """One row of the page."""

    source: str
    destination: str
    ports: tuple[str, ...]
    same_namespace: bool
    why: str


@dataclass(frozen=True, slots=True)
class Party:
    """An end with its role on the page; `is_ours` is a pod that our policies are for."""

    role: str
    end: End
    is_ours: bool = False


Step = tuple[str, str, str, int]
"""Source address, destination address, protocol, port: a flow as a set can hold it."""
Side = tuple[Step, Direction]
"""A flow as one of its ends sees it: both must allow it, and each alone must allow no more than is declared."""


def declared() -> tuple[Edge, ...]:
    """The page's table."""
    table = PAGE.read_text().split("## Edges")[1].split("\n\n")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", table, flags=re.M)[1:]
    return tuple(
        Edge(source, to.removesuffix(SAME), tuple(ports.split(", ")), to.endswith(SAME), why)
        for source, to, ports, why in rows
    )


def ports_of(values: Mapping[str, Any]) -> dict[str, tuple[tuple[str, int], ...]]:
    """The page's port names as numbers, for one set of values."""
    coordinator, policies = values["coordinator"], values["networkPolicies"]

    def tcp(*numbers: int) -> tuple[tuple[str, int], ...]:
        return tuple(("TCP", number) for number in numbers)

    return {
        "API": tcp(*policies["apiServer"]["ports"]), "gRPC": tcp(coordinator["grpcPort"]),
        "HTTPS": tcp(coordinator["httpPort"]), "scaling": tcp(coordinator["scalingPort"]),
        "database": tcp(policies["database"]["port"]), "operator's": tcp(values["operator"]["port"]),
        "worker's": tcp(8082), "model": tcp(8100), "names": (("UDP", 53), ("TCP", 53)),
        "external": tcp(*(port for models in policies["models"] for port in models["ports"])),
    }  # fmt: skip


def lint_values() -> dict[str, Any]:
    """Values in which every end has an address of its own."""
    found: dict[str, Any] = yaml.safe_load((CHART / "lint-values.yaml").read_text())
    return found


def parties() -> tuple[Party, ...]:
    """The crowd: every end of the page as lint-values.yaml declares it, and strangers who look like them."""
    ours, jobs = {"app.kubernetes.io/name": "espalier"}, {"app.kubernetes.io/managed-by": "espalier"}
    component = "app.kubernetes.io/component"
    addresses = iter(f"10.1.0.{n}" for n in range(1, 250))

    def pod(role: str, namespace: str, labels: Mapping[str, str], *, is_ours: bool = False) -> Party:
        namespace_labels = {"kubernetes.io/metadata.name": namespace}
        made = Pod(namespace, role, labels, namespace_labels, frozenset({"10.9.0.1"}))
        return Party(role, End(next(addresses), made), is_ours)

    def in_course(namespace: str) -> Iterator[Party]:
        yield pod("worker", namespace, jobs | {component: "worker"}, is_ours=True)
        yield pod("sandbox pod", namespace, jobs | {component: "sandbox"}, is_ours=True)
        yield pod("model server", namespace, jobs | {component: "mlx"}, is_ours=True)
        yield pod("other pods of the operator", namespace, jobs | {component: "other"}, is_ours=True)
        yield pod("model client", namespace, {"espalier.dev/model-client": "true"})
        yield pod("stranger", namespace, {"app": "web"})

    return (
        *(
            pod(word, NAMESPACE, ours | {component: word}, is_ours=True)
            for word in ("operator", "coordinator", "canary")
        ),
        pod("pool worker", NAMESPACE, ours | {component: "worker"}, is_ours=True),
        pod("guest", NAMESPACE, {"app": "guest"}, is_ours=True),
        *(party for course in COURSES for party in in_course(course)),
        pod("Prometheus", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
        pod("stranger", "monitoring", {"app.kubernetes.io/name": "grafana"}),
        pod("DNS", "kube-system", {"k8s-app": "kube-dns"}),
        pod("stranger", "kube-system", {"k8s-app": "other"}),
        pod("KEDA", "keda", {"app": "keda-operator"}),
        pod("stranger", "keda", {"app": "keda-metrics"}),
        pod("database", "databases", {"app": "postgres"}),
        pod("stranger", "databases", {"app": "backup"}),
        *(
            pod("stranger", "elsewhere", ours | {component: word})
            for word in ("operator", "coordinator", "worker", "mlx")
        ),
        *(pod("stranger", "elsewhere", labels) for labels in (
            {"k8s-app": "kube-dns"}, {"app.kubernetes.io/name": "prometheus"}, {"app": "postgres"},
            {"app": "keda-operator"}, jobs | {component: "other"},
        )),
        *(Party(role, End(address)) for role, address in (
            ("API server", "10.3.0.1"), ("Mac", "10.20.0.5"), ("Mac", "10.21.0.7"), ("external model", "198.51.100.7"),
            ("DNS", "169.254.20.10"), ("Prometheus", "10.5.0.5"), ("KEDA", "10.5.0.6"), ("database", "10.4.0.9"),
            ("stranger", "203.0.113.9"), ("stranger", "10.3.1.1"), ("stranger", "10.20.1.1"),
        )),
    )  # fmt: skip


def expected(edges: Iterable[Edge], crowd: Iterable[Party], values: Mapping[str, Any]) -> frozenset[Side]:
    """What the table allows, between all who have those roles, as those of them see it whose policies are ours."""
    known, numbers = tuple(crowd), ports_of(values)
    return frozenset(
        ((a.end.address, b.end.address, protocol, port), direction)
        for edge in edges
        for a in known if a.role == edge.source
        for b in known if b.role == edge.destination and a.end is not b.end
        if not edge.same_namespace or (a.end.pod and b.end.pod and a.end.pod.namespace == b.end.pod.namespace)
        for name in edge.ports
        for protocol, port in numbers[name]
        for direction, own in (("egress", a), ("ingress", b)) if own.is_ours
    )  # fmt: skip


def flows(crowd: Iterable[Party], values: Mapping[str, Any]) -> Iterator[Flow]:
    """Everybody to everybody else on every port that means something and one that does not; one end is ours."""
    known, closed = tuple(crowd), {UNDECLARED_PORT, values["coordinator"]["healthPort"]}
    ports = sorted({port for several in ports_of(values).values() for _, port in several} | closed)
    for a in known:
        for b in known:
            if a.end is not b.end and (a.is_ours or b.is_ours):
                yield from (Flow(a.end, b.end, protocol, port) for protocol in ("TCP", "UDP") for port in ports)


def policies(objects: tuple[dict[str, Any], ...], namespaces: Iterable[str] = COURSES) -> list[dict[str, Any]]:
    """NetworkPolicies of a rendered chart, and those that the operator makes of its ConfigMap in each namespace."""
    from espalier_operator.plan.policies import job_policies, parse_templates

    templates = parse_templates(find(objects, "ConfigMap", "espalier-job-policies")["data"]["policies.yaml"])
    made = [policy for namespace in namespaces for policy in job_policies(namespace, templates)]
    return [*(o for o in objects if o["kind"] == "NetworkPolicy"), *made]
