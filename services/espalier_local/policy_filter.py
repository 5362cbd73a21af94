"""NetworkPolicies as nftables rules of one node: pure, from `espalier_kube.netpol`'s reading of them.

Each isolated pod of the node has a chain per direction: what a rule allows returns, the rest is dropped (a reset would
not find its way back over the pods' bridge). Connections that exist go on; traffic between a pod and its own node is
not forwarded and so never asked about. IPv4, as local clusters are.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from espalier_kube.netpol import Allowance, Block, Direction, End, Pod, Policy, isolation

TABLE = "espalier-policies"
DROPPED = "dropped"
"""The set that remembers what was tried and dropped: source, destination, protocol, port."""
_SIDES: Mapping[Direction, tuple[str, str]] = {"egress": ("saddr", "daddr"), "ingress": ("daddr", "saddr")}
"""Which address is the pod's own, and which the peer's."""
_ENDED = ("Succeeded", "Failed")


def ends(pods: Iterable[Mapping[str, Any]], namespaces: Iterable[Mapping[str, Any]]) -> tuple[End, ...]:
    """The pods that have an address of their own; one with its node's address is a process, no pod to them."""
    labels = {each["metadata"]["name"]: each["metadata"].get("labels") or {} for each in namespaces}
    return tuple(_end(pod, labels) for pod in pods if _has_address(pod) and pod["metadata"]["namespace"] in labels)


def ruleset(node: str, pods: Sequence[End], policies: Sequence[Policy]) -> str:
    """What `nft -f -` reads: replaces what was there before in one step. `node` is the node's address."""
    chains: list[str] = []
    jumps: dict[Direction, list[str]] = {"egress": [], "ingress": []}
    for end in sorted(pods, key=lambda each: each.address):
        if end.pod is None or node not in end.pod.node_addresses:
            continue
        isolated = isolation(policies, end.pod, pods)
        by_direction: dict[Direction, tuple[Allowance, ...] | None] = {
            "egress": isolated.egress, "ingress": isolated.ingress,
        }
        for direction, allowances in by_direction.items():
            if allowances is not None:
                name = f"{direction}-{end.address}"
                jumps[direction].append(f"{end.address} : jump {name}")
                chains += _chain(name, direction, end, allowances)
    # The set outlives a change of the rules; chains of pods that are gone stay, empty.
    return "\n".join((*_set(), f"flush table inet {TABLE}", *_table(chains, jumps), ""))


def _set() -> Iterator[str]:
    yield f"table inet {TABLE} {{"
    yield f" set {DROPPED} {{"
    yield "  type ipv4_addr . ipv4_addr . inet_proto . inet_service"
    yield "  flags dynamic"
    yield "  size 4096"
    yield " }"
    yield "}"


def _table(chains: Sequence[str], jumps: Mapping[Direction, Sequence[str]]) -> Iterator[str]:
    yield f"table inet {TABLE} {{"
    yield from chains
    yield " chain forward {"
    yield "  type filter hook forward priority filter; policy accept;"
    yield "  ct state established,related accept"
    for direction, targets in jumps.items():
        if targets:
            yield f"  ip {_SIDES[direction][0]} vmap {{ {', '.join(targets)} }}"
    yield " }"
    yield "}"


def _chain(name: str, direction: Direction, end: End, allowances: Iterable[Allowance]) -> Iterator[str]:
    peer = _SIDES[direction][1]
    yield f" chain {name} {{"
    yield f"  ip {peer} {end.address} return"
    for allowance in allowances:
        for match in _matches(allowance, peer):
            yield f"  {match}"
    # A rule of its own: where the set is full, only the note is lost.
    yield f"  meta l4proto {{ tcp, udp }} add @{DROPPED} {{ ip saddr . ip daddr . meta l4proto . th dport }}"
    yield "  drop"
    yield " }"


def _matches(allowance: Allowance, peer: str) -> Iterator[str]:
    addresses = [""] if allowance.blocks is None else list(_address_matches(allowance.blocks, peer))
    ports = [""] if allowance.ports is None else list(_port_matches(allowance.ports))
    for address in addresses:
        yield from (" ".join(part for part in (address, port, "return") if part) for port in ports)


def _address_matches(blocks: Iterable[Block], peer: str) -> Iterator[str]:
    known = [block for block in blocks if isinstance(block.network, ipaddress.IPv4Network)]
    plain = ipaddress.collapse_addresses(
        block.network for block in known if not block.excepts and isinstance(block.network, ipaddress.IPv4Network)
    )
    if whole := [str(network) for network in plain]:
        yield f"ip {peer} {{ {', '.join(whole)} }}"
    for block in known:
        if block.excepts:
            gaps = ipaddress.collapse_addresses(n for n in block.excepts if isinstance(n, ipaddress.IPv4Network))
            yield f"ip {peer} {block.network} ip {peer} != {{ {', '.join(map(str, gaps))} }}"


def _port_matches(ports: Iterable[tuple[str, int, int]]) -> Iterator[str]:
    by_protocol: dict[str, list[tuple[int, int]]] = {}
    for protocol, first, last in ports:
        by_protocol.setdefault(protocol.lower(), []).append((first, last))
    for protocol, ranges in by_protocol.items():
        yield f"{protocol} dport {{ {', '.join(f'{first}-{last}' for first, last in _merged(ranges))} }}"


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """nft refuses a set whose intervals overlap."""
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1] + 1:
            made[-1] = (made[-1][0], max(made[-1][1], last))
        else:
            made.append((first, last))
    return made


def _has_address(pod: Mapping[str, Any]) -> bool:
    status = pod.get("status") or {}
    address = status.get("podIP")
    return bool(address) and address != status.get("hostIP") and status.get("phase") not in _ENDED


def _end(pod: Mapping[str, Any], namespaces: Mapping[str, Mapping[str, str]]) -> End:
    meta, status = pod["metadata"], pod["status"]
    ports = tuple(
        (port["name"], port.get("protocol", "TCP"), int(port["containerPort"]))
        for container in pod["spec"]["containers"]
        for port in container.get("ports") or ()
        if "name" in port
    )
    namespace = meta["namespace"]
    return End(
        status["podIP"],
        Pod(
            namespace, meta["name"], meta.get("labels") or {}, namespaces[namespace],
            frozenset({status.get("hostIP", "")}), ports,
        ),
    )  # fmt: skip
