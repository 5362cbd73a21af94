"""Who really talked to whom on a cluster of container nodes, against its live policies and the declared edges.

    with recording(cluster) as seen:
        ...                       # the run
    assert seen.problems() == []
    ...                           # after the last run of all
    assert unproven(declared_pairs(), used_by_all(), excused=UNUSED) == []

Flows are read from connection tracking in each Linux node's network, as each packet took it: after a Service's
translation. What the filter dropped never becomes a tracked connection; the filter remembers it itself.
"""

from __future__ import annotations

import ipaddress
import json
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import yaml

from espalier_kube.cluster import NAMESPACE as NAMESPACES
from espalier_kube.cluster import NETWORK_POLICY, POD
from espalier_kube.netpol import End, Flow, Pod, Policy, parse, verdict
from espalier_local.addresses import Cables
from espalier_local.api import list_all
from espalier_local.cables import inside
from espalier_local.cluster import Cluster
from espalier_local.containers import linux_positions
from espalier_local.pki import SERVICE_RANGE
from espalier_local.policy_filter import DROPPED, TABLE, ends
from tests.support import edges
from tests.support.charts import CHART, NAMESPACE

Pair = tuple[str, str]
"""(from, to) of an edge of the page."""
PERIOD_S = 2.0
"""Connection tracking forgets an answered UDP packet after 30 s, a closed connection after 120 s."""
_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")
_ROLES = {"operator": "operator", "coordinator": "coordinator", "canary": "canary", "worker": "pool worker"}
_JOB_ROLES = {"worker": "worker", "mlx": "model server", "sandbox": "sandbox pod"}
_OF_THE_SWITCH = frozenset({"API server", "DNS"})
_OF_A_CABLE = frozenset({"Mac", "database"})
"""Who may have an address that is no pod's; the port tells them apart."""

_NO_PROMETHEUS = "the local cluster has no Prometheus"
_NOTHING_OUTSIDE = "no host has a way to the world, so networkPolicies.models is empty"
UNUSED: Mapping[Pair, str] = {
    ("worker", "external model"): _NOTHING_OUTSIDE,
    ("pool worker", "external model"): _NOTHING_OUTSIDE,
    ("Prometheus", "operator"): _NO_PROMETHEUS,
    ("Prometheus", "coordinator"): _NO_PROMETHEUS,
    ("Prometheus", "worker"): _NO_PROMETHEUS,
    ("Prometheus", "pool worker"): _NO_PROMETHEUS,
    ("Prometheus", "model server"): _NO_PROMETHEUS,
    ("KEDA", "coordinator"): "the local cluster has no KEDA",
    ("coordinator", "DNS"): "it looks up its database only, which the tests give by address",
    ("model server", "DNS"): "it looks nothing up",
    ("other pods of the operator", "DNS"): "there are none",
}
"""Declared edges that no test on container nodes uses, with the reason."""
_recorded: list[Seen] = []
"""By every recording of these tests, so that one test can look at them all."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run did: flows with an end of ours, what was dropped, and the policies that held."""

    flows: tuple[tuple[End, End, str, int], ...]
    dropped: frozenset[tuple[str, str, str, int]]
    policies: tuple[Policy, ...]
    cables: Cables

    def problems(self) -> list[str]:
        """A sentence for each flow that no policy allows and for each drop."""
        return [*self.forbidden(), *self.refused()]

    def forbidden(self) -> list[str]:
        """Flows that happened although the live policies, as the evaluator reads them, forbid them."""
        return sorted({
            f"{_named(a)} -> {_named(b)} {protocol}/{port}: {judged.egress.because}; {judged.ingress.because}"
            for a, b, protocol, port in self.flows
            if not (judged := verdict(self.policies, Flow(a, b, protocol, port))).allowed
        })  # fmt: skip

    def refused(self) -> list[str]:
        """What was tried and dropped: a program wants an edge that is not declared.

        What policies allow and came through is none: the filter had not heard yet of a new pod that was asked at once.
        """
        through = {
            (a.address, b.address, protocol, port)
            for a, b, protocol, port in self.flows
            if verdict(self.policies, Flow(a, b, protocol, port)).allowed
        }
        return sorted(f"dropped: {a} -> {b} {protocol}/{port}" for a, b, protocol, port in self.dropped - through)

    def used(self) -> set[Pair]:
        """The page's edges that the run used, each on a port of its own."""
        return {
            pair_of(edge)
            for edge in edges.declared()
            for a, b, protocol, port in self.flows
            if edge.source in self._roles(a) and edge.destination in self._roles(b)
            and (protocol, port) in _ports(edge) and (not edge.same_namespace or _are_neighbours(a, b))
        }  # fmt: skip

    def _roles(self, end: End) -> AbstractSet[str]:
        if end.pod is None:
            return _OF_THE_SWITCH if end.address == self.cables.server else _OF_A_CABLE
        component = end.pod.labels.get("app.kubernetes.io/component", "")
        own = (_ROLES if end.pod.namespace == NAMESPACE else _JOB_ROLES).get(component)
        is_client = end.pod.labels.get("espalier.dev/model-client") == "true"
        return {*((own,) if own else ()), *(("model client",) if is_client else ())}


def pair_of(edge: edges.Edge) -> Pair:
    """Its ends."""
    return edge.source, edge.destination


def declared_pairs() -> set[Pair]:
    """Of all edges of the page."""
    return {pair_of(edge) for edge in edges.declared()}


def used_by_all() -> set[Pair]:
    """The edges that some recording up to now has seen in use."""
    return set().union(*(seen.used() for seen in _recorded))


def unproven(declared: AbstractSet[Pair], used: AbstractSet[Pair], *, excused: Mapping[Pair, str]) -> list[str]:
    """A sentence for each declared edge without use or reason, and for each reason that is none (any more)."""
    return sorted((
        *(f"unused: {a} -> {b}" for a, b in declared - used - excused.keys()),
        *(f"excused, yet used: {a} -> {b}: {why}" for (a, b), why in excused.items() if (a, b) in used),
        *(f"excused, yet not declared: {a} -> {b}" for a, b in excused.keys() - declared),
    ))  # fmt: skip


@cache
def _ports(edge: edges.Edge) -> frozenset[tuple[str, int]]:
    """Protocols and ports of an edge with the chart's own values."""
    numbers = edges.ports_of(yaml.safe_load((CHART / "values.yaml").read_text()))
    return frozenset(found for name in edge.ports for found in numbers[name])


def _are_neighbours(a: End, b: End) -> bool:
    return a.pod is not None and b.pod is not None and a.pod.namespace == b.pod.namespace


class Recorder(threading.Thread):
    """Looks every other second until it is told to stop."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(name="flows", daemon=True)
        assert cluster.cables is not None, "flows are read on container nodes"
        self._cluster, self._cables = cluster, cluster.cables
        self._linux = [host.name for host in cluster.hosts if host.name.startswith("linux-")]
        self._pods: dict[str, End] = {}
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._policies: tuple[Policy, ...] = ()
        self._before = {step for name in self._linux for step in (*self._tracked(name), *self._dropped(name))}
        self._steps = set(self._before)
        self._addresses = {name: self._own_addresses(name) for name in self._linux}
        self._bridges = frozenset().union(*self._addresses.values())

    def run(self) -> None:
        """Until `finish`, in a thread of its own as the API's reader has an event loop; a failure is raised there."""
        try:
            while not self._stopped.wait(PERIOD_S):
                self.look()
            self.look()
            self._policies = tuple(parse(policy) for policy in list_all(self._cluster.kubeconfig, NETWORK_POLICY))
        except Exception as error:  # handed to who waits
            self._failure = error

    def look(self) -> None:
        """Once."""
        pods, namespaces = (list_all(self._cluster.kubeconfig, kind) for kind in (POD, NAMESPACES))
        self._pods |= {end.address: end for end in ends(pods, namespaces)}
        self._steps |= {step for name in self._linux for step in self._tracked(name)}

    def finish(self) -> Seen:
        """What was seen, up to now."""
        self._stopped.set()
        self.join()
        if self._failure is not None:
            raise self._failure
        dropped = {step for name in self._linux for step in self._dropped(name)} - self._before
        return Seen(tuple(self._flows()), frozenset(dropped), self._policies, self._cables)

    def _flows(self) -> Iterator[tuple[End, End, str, int]]:
        """Those with a pod at an end. Some from before the recording are of pods that are gone: nobody knows them."""
        pods = {address: self._at_home(end) for address, end in self._pods.items()}
        networks = [ipaddress.ip_network(self._cables.pods(k)) for k in linux_positions()]
        for source, destination, protocol, port in self._steps:
            a, b = (pods.get(address, End(address)) for address in (source, destination))
            unknown = [e for e in (a, b) if not e.pod and any(ipaddress.ip_address(e.address) in n for n in networks)]
            is_old = (source, destination, protocol, port) in self._before
            if (a.pod or b.pod) and not (is_old and any(e.address not in self._bridges for e in unknown)):
                yield a, b, protocol, port

    def _at_home(self, end: End) -> End:
        """With all addresses of its node: a probe comes from the bridge that the node's pods are on."""
        assert end.pod is not None
        homes = [own for own in self._addresses.values() if own & end.pod.node_addresses]
        return replace(end, pod=replace(end.pod, node_addresses=end.pod.node_addresses.union(*homes)))

    def _own_addresses(self, name: str) -> frozenset[str]:
        found = json.loads(self._inside(name, "ip", "-json", "-4", "address"))
        return frozenset(info["local"] for device in found for info in device["addr_info"])

    def _tracked(self, name: str) -> set[tuple[str, str, str, int]]:
        return _arrived(parse_tracked(self._inside(name, "cat", "/proc/net/nf_conntrack")))

    def _dropped(self, name: str) -> set[tuple[str, str, str, int]]:
        return _arrived(parse_dropped(self._inside(name, "nft", "--json", "list", "set", "inet", TABLE, DROPPED)))

    def _inside(self, name: str, *command: str) -> str:
        words = inside(self._cables.namespace(name), *command)
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=30).stdout


class Sight:
    """Filled when the recording ends."""

    seen: Seen | None = None

    def problems(self) -> list[str]:
        """As `Seen.problems`."""
        assert self.seen is not None, "the recording goes on"
        return self.seen.problems()


@contextmanager
def recording(cluster: Cluster) -> Iterator[Sight]:
    """Record while the block runs; what was seen counts for `used_by_all` as well."""
    recorder, sight = Recorder(cluster), Sight()
    recorder.start()
    try:
        yield sight
    finally:
        sight.seen = recorder.finish()
        _recorded.append(sight.seen)


def parse_tracked(text: str) -> set[tuple[str, str, str, int]]:
    """/proc/net/nf_conntrack: who opened it, who really answered, protocol, port. What nobody answered counts too."""
    found = set()
    for line in text.splitlines():
        protocol = line.split()[2]
        if protocol in ("tcp", "udp"):
            (source, _, _, _), (answerer, _, port, _) = _TUPLE.findall(line)[:2]
            found.add((source, answerer, protocol.upper(), int(port)))
    return found


def parse_dropped(text: str) -> set[tuple[str, str, str, int]]:
    """`nft --json list set`: the filter's memory."""
    (found,) = (entry["set"] for entry in json.loads(text)["nftables"] if "set" in entry)
    return {_step(element) for element in found.get("elem", ())}


def _arrived(steps: set[tuple[str, str, str, int]]) -> set[tuple[str, str, str, int]]:
    """Without those to a Service's own address: nobody translated it, as it had no endpoint then."""
    services = ipaddress.ip_network(SERVICE_RANGE)
    return {step for step in steps if ipaddress.ip_address(step[1]) not in services}


def _step(element: Mapping[str, Any]) -> tuple[str, str, str, int]:
    source, destination, protocol, port = element["concat"]
    return str(source), str(destination), str(protocol).upper(), int(port)


def _named(end: End) -> str:
    pod: Pod | None = end.pod
    return f"{pod.namespace}/{pod.name}" if pod else end.address


def table(seen: Seen) -> Iterable[str]:
    """For a person: each flow once, with its ends' names."""
    return sorted({f"{_named(a)} -> {_named(b)} {protocol}/{port}" for a, b, protocol, port in seen.flows})
