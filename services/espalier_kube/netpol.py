"""NetworkPolicy as its API defines it, evaluated without a cluster: is a flow allowed, and which rule says so?

Pure. `parse` reads networking.k8s.io/v1 objects, `verdict` judges one flow, `isolation` gives all that a pod may send
or receive, which is what a filter needs. Semantics as the API reference and the Kubernetes page "Network Policies"
state them, also where they are easily forgotten: a pod that no policy selects is open; policies only add; both ends
must agree; a pod always reaches itself and its own node; a null selector is absent, an empty one matches everything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["ingress", "egress"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ALL_PORTS = (1, 65535)


@dataclass(frozen=True, slots=True)
class Selector:
    """A LabelSelector; without terms it matches everything."""

    labels: tuple[tuple[str, str], ...] = ()
    expressions: tuple[tuple[str, str, frozenset[str]], ...] = ()
    """(key, operator, values)."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether all terms hold."""
        return all(labels.get(key) == value for key, value in self.labels) and all(
            _holds(operator, labels.get(key), values) for key, operator, values in self.expressions
        )


@dataclass(frozen=True, slots=True)
class Block:
    """An ipBlock."""

    network: Network
    excepts: tuple[Network, ...] = ()

    def holds(self, address: Address) -> bool:
        """Whether the address lies in it and in none of its exceptions."""
        return address in self.network and not any(address in network for network in self.excepts)


@dataclass(frozen=True, slots=True)
class Peer:
    """One entry of `from` or `to`: a block, or pods by selectors of which None is absent."""

    block: Block | None = None
    pods: Selector | None = None
    namespaces: Selector | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """One entry of `ports`; `port` None is every port of the protocol, text is a container port's name."""

    protocol: str = "TCP"
    port: int | str | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One ingress or egress rule. None is an absent list: every peer, every port."""

    peers: tuple[Peer, ...] | None
    ports: tuple[Port, ...] | None


@dataclass(frozen=True, slots=True)
class Policy:
    """One NetworkPolicy. None: it does not isolate in that direction."""

    namespace: str
    name: str
    selector: Selector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        """The rules of one direction."""
        return self.ingress if direction == "ingress" else self.egress


@dataclass(frozen=True, slots=True)
class Pod:
    """What policies see of a pod on the pod network. One that has its node's address is no such pod: use `End`."""

    namespace: str
    name: str
    labels: Mapping[str, str]
    namespace_labels: Mapping[str, str]
    node_addresses: frozenset[str] = frozenset()
    ports: tuple[tuple[str, str, int], ...] = ()
    """(name, protocol, number) of its named container ports."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a flow: an address, and the pod that has it, if one has."""

    address: str
    pod: Pod | None = None


@dataclass(frozen=True, slots=True)
class Flow:
    """A connection, or the first packet of one; `port` is the destination's, after any Service's translation."""

    source: End
    destination: End
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Half:
    """What one end says; `because` names `policy namespace/name rule N`, or why no rule was needed or found."""

    allowed: bool
    because: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What both ends say."""

    egress: Half
    ingress: Half

    @property
    def allowed(self) -> bool:
        """Both must agree."""
        return self.egress.allowed and self.ingress.allowed


@dataclass(frozen=True, slots=True)
class Allowance:
    """Traffic of one rule, resolved: peers as blocks (None: everybody), and inclusive port ranges."""

    blocks: tuple[Block, ...] | None
    ports: tuple[tuple[str, int, int], ...] | None
    """(protocol, first, last); None: everything."""


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a pod may receive and send; None: it is not isolated in that direction."""

    ingress: tuple[Allowance, ...] | None = field(default=None)
    egress: tuple[Allowance, ...] | None = field(default=None)


def parse(policy: Mapping[str, Any]) -> Policy:
    """A NetworkPolicy object; `policyTypes` defaults as the API server defaults it."""
    spec, meta = policy["spec"], policy["metadata"]
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return Policy(
        namespace=meta.get("namespace", "default"),
        name=meta["name"],
        selector=_selector(spec.get("podSelector") or {}),
        ingress=_rules(spec.get("ingress"), "from") if "Ingress" in types else None,
        egress=_rules(spec.get("egress"), "to") if "Egress" in types else None,
    )


def verdict(policies: Iterable[Policy], flow: Flow) -> Verdict:
    """What the policies of both ends say about a flow."""
    known = tuple(policies)
    return Verdict(_half(known, flow, "egress"), _half(known, flow, "ingress"))


def isolation(policies: Iterable[Policy], pod: Pod, others: Iterable[End]) -> Isolation:
    """All that `pod` may receive and send, with selectors resolved over the pods that exist."""
    known, ends = [p for p in policies if _selects(p, pod)], [end for end in others if end.pod]

    def allowances(direction: Direction) -> tuple[Allowance, ...] | None:
        isolating = [(p, rules) for p in known if (rules := p.rules(direction)) is not None]
        if not isolating:
            return None
        made = (_resolved(p, rule, direction, pod, ends) for p, rules in isolating for rule in rules)
        return tuple(allowance for several in made for allowance in several)

    return Isolation(allowances("ingress"), allowances("egress"))


def _half(policies: tuple[Policy, ...], flow: Flow, direction: Direction) -> Half:
    own, peer = (flow.source, flow.destination) if direction == "egress" else (flow.destination, flow.source)
    if own.pod is None:
        return Half(True, "no pod")
    if own.address == peer.address:
        return Half(True, "itself")
    if peer.address in own.pod.node_addresses:
        return Half(True, "own node")
    selecting = [(p, rules) for p in policies if _selects(p, own.pod) and (rules := p.rules(direction)) is not None]
    if not selecting:
        return Half(True, "no policy selects it")
    for policy, rules in selecting:
        for number, rule in enumerate(rules):
            if _rule_allows(policy, rule, peer, flow):
                return Half(True, f"{policy.namespace}/{policy.name} {direction} rule {number}")
    names = ", ".join(sorted(f"{p.namespace}/{p.name}" for p, _ in selecting))
    return Half(False, f"no {direction} rule of {names}")


def _selects(policy: Policy, pod: Pod) -> bool:
    return policy.namespace == pod.namespace and policy.selector.matches(pod.labels)


def _rule_allows(policy: Policy, rule: Rule, peer: End, flow: Flow) -> bool:
    has_peer = rule.peers is None or any(_peer_matches(policy, p, peer) for p in rule.peers)
    return has_peer and (rule.ports is None or any(_port_matches(p, flow) for p in rule.ports))


def _peer_matches(policy: Policy, peer: Peer, end: End) -> bool:
    if peer.block is not None:
        return peer.block.holds(ipaddress.ip_address(end.address))
    pod = end.pod
    if pod is None:
        return False
    if peer.namespaces is None and pod.namespace != policy.namespace:
        return False
    if peer.namespaces is not None and not peer.namespaces.matches(pod.namespace_labels):
        return False
    return peer.pods is None or peer.pods.matches(pod.labels)


def _port_matches(port: Port, flow: Flow) -> bool:
    if port.protocol != flow.protocol:
        return False
    return any(first <= flow.port <= last for first, last in _ranges(port, flow.destination.pod))


def _ranges(port: Port, destination: Pod | None) -> Iterator[tuple[int, int]]:
    """A named port is the destination's: each destination may give it another number."""
    if port.port is None:
        yield ALL_PORTS
    elif isinstance(port.port, int):
        yield port.port, port.end or port.port
    elif destination is not None:
        for name, protocol, number in destination.ports:
            if (name, protocol) == (port.port, port.protocol):
                yield number, number


def _resolved(policy: Policy, rule: Rule, direction: Direction, pod: Pod, ends: list[End]) -> Iterator[Allowance]:
    """Most rules give one allowance; egress to a named port gives one per destination."""
    matching = [end for end in ends if any(_peer_matches(policy, p, end) for p in rule.peers or () if not p.block)]
    blocks = tuple(p.block for p in rule.peers or () if p.block)
    is_named = rule.ports is not None and any(isinstance(p.port, str) for p in rule.ports)
    if direction == "egress" and is_named:
        for end in ends if rule.peers is None else [e for e in ends if e in matching or _inside(blocks, e)]:
            yield Allowance((_host(end.address),), _port_ranges(rule, end.pod))
        yield Allowance(None if rule.peers is None else blocks, _port_ranges(rule, None))
        return
    peers = None if rule.peers is None else (*blocks, *(_host(end.address) for end in matching))
    yield Allowance(peers, _port_ranges(rule, pod if direction == "ingress" else None))


def _inside(blocks: tuple[Block, ...], end: End) -> bool:
    return any(block.holds(ipaddress.ip_address(end.address)) for block in blocks)


def _port_ranges(rule: Rule, destination: Pod | None) -> tuple[tuple[str, int, int], ...] | None:
    if rule.ports is None:
        return None
    return tuple((p.protocol, first, last) for p in rule.ports for first, last in _ranges(p, destination))


def _host(address: str) -> Block:
    return Block(ipaddress.ip_network(address))


def _holds(operator: str, value: str | None, values: frozenset[str]) -> bool:
    if operator == "In":
        return value in values
    if operator == "NotIn":
        return value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    raise ValueError(f"label selector operator {operator!r}")


def _rules(rules: Iterable[Mapping[str, Any]] | None, peers: Literal["from", "to"]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            tuple(_peer(p) for p in rule[peers]) if rule.get(peers) else None,
            tuple(_port(p) for p in rule["ports"]) if rule.get("ports") else None,
        )
        for rule in rules or ()
    )


def _peer(peer: Mapping[str, Any]) -> Peer:
    if block := peer.get("ipBlock"):
        excepts = tuple(ipaddress.ip_network(cidr) for cidr in block.get("except") or ())
        return Peer(block=Block(ipaddress.ip_network(block["cidr"]), excepts))
    pods, namespaces = peer.get("podSelector"), peer.get("namespaceSelector")
    return Peer(
        pods=None if pods is None else _selector(pods), namespaces=None if namespaces is None else _selector(namespaces)
    )


def _port(port: Mapping[str, Any]) -> Port:
    return Port(port.get("protocol") or "TCP", port.get("port"), port.get("endPort"))


def _selector(selector: Mapping[str, Any]) -> Selector:
    expressions = selector.get("matchExpressions") or ()
    return Selector(
        tuple(sorted((selector.get("matchLabels") or {}).items())),
        tuple((e["key"], e["operator"], frozenset(e.get("values") or ())) for e in expressions),
    )
