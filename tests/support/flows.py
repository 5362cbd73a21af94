"""Who really talked to whom on a cluster of container nodes, against its live policies and the declared edges.

    with recording(cluster) as seen:
        ...                       # the run
    assert seen.problems() == []

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
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from espalier_kube.cluster import NAMESPACE as NAMESPACES
from espalier_kube.cluster import NETWORK_POLICY, POD
from espalier_kube.netpol import End, Flow, Pod, Policy, parse, verdict
from espalier_local.addresses import API_PORT, Cables
from espalier_local.api import list_all
from espalier_local.cables import inside
from espalier_local.cluster import Cluster
from espalier_local.containers import linux_positions
from espalier_local.pki import SERVICE_RANGE
from espalier_local.policy_filter import DROPPED, TABLE, ends
from tests.support import edges
from tests.support.charts import NAMESPACE

PERIOD_S = 2.0
"""Connection tracking forgets an answered UDP packet after 30 s, a closed connection after 120 s."""
_TUPLE = re.compile(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)")
_ROLES = {"operator": "operator", "coordinator": "coordinator", "canary": "canary", "worker": "pool worker"}
_JOB_ROLES = {"worker": "worker", "mlx": "model server", "sandbox": "sandbox pod"}

UNUSED = {
    ("coordinator", "database"): "the local cluster keeps tasks in SQLite",
    ("worker", "external model"): "a class judged on the cluster's own Macs calls nothing outside",
    ("worker", "model server"): "the judges of the class are on Macs",
    ("operator", "model server"): "the judges of the class are on Macs",
    ("model server", "DNS"): "a model server looks nothing up",
    ("coordinator", "DNS"): "it looks up its database only",
    ("operator", "DNS"): "asked when its connection to the coordinator is opened, which was before",
    ("model client", "model server"): "nobody else's pod calls a model",
    ("pool worker", ""): "the class has workers of its own",
    ("canary", ""): "used by helm test",
    ("Prometheus", ""): "the local cluster has none",
    ("KEDA", ""): "the local cluster has none",
    ("API server", "coordinator"): "no pool scales on external metrics",
    ("other pods of the operator", "DNS"): "there are none",
}
"""Declared edges that a graded class may leave unused, with the reason; "" stands for every destination."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a run did: flows with an end of ours, what was dropped, and the policies that held."""

    flows: tuple[tuple[End, End, str, int], ...]
    dropped: frozenset[tuple[str, str, str, int]]
    policies: tuple[Policy, ...]
    cables: Cables

    def problems(self) -> list[str]:
        """A sentence for each flow that no policy allows, each drop, and each edge without use or reason."""
        return [*self.forbidden(), *self.refused(), *self.idle()]

    def forbidden(self) -> list[str]:
        """Flows that happened although the live policies, as the evaluator reads them, forbid them."""
        return sorted({
            f"{_named(a)} -> {_named(b)} {protocol}/{port}: {judged.egress.because}; {judged.ingress.because}"
            for a, b, protocol, port in self.flows
            if not (judged := verdict(self.policies, Flow(a, b, protocol, port))).allowed
        })  # fmt: skip

    def refused(self) -> list[str]:
        """What was tried and dropped: a program wants an edge that is not declared."""
        return sorted(f"dropped: {a} -> {b} {protocol}/{port}" for a, b, protocol, port in self.dropped)

    def used(self) -> set[tuple[str, str]]:
        """(from, to) of the page's edges that the run used."""
        return {
            (edge.source, edge.destination)
            for edge in edges.declared()
            for a, b, _, port in self.flows
            if edge.source in self._roles(a, 0) and edge.destination in self._roles(b, port)
        }

    def idle(self) -> list[str]:
        """Declared edges that were neither used nor are listed in `UNUSED`."""
        declared, used = {(edge.source, edge.destination) for edge in edges.declared()}, self.used()
        return sorted(
            f"unused: {a} -> {b}" for a, b in declared - used if (a, b) not in UNUSED and (a, "") not in UNUSED
        )

    def _roles(self, end: End, port: int) -> set[str]:
        if end.pod is not None:
            component = end.pod.labels.get("app.kubernetes.io/component", "")
            return {(_ROLES if end.pod.namespace == NAMESPACE else _JOB_ROLES).get(component, "stranger")}
        if end.address == self.cables.server:
            return {"DNS"} if port == 53 else {"API server"} if port in (0, API_PORT) else {"stranger"}
        return {"Mac"}


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
    """Record while the block runs."""
    recorder, sight = Recorder(cluster), Sight()
    recorder.start()
    try:
        yield sight
    finally:
        sight.seen = recorder.finish()


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
