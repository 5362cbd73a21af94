"""Rules of a node from NetworkPolicies: whom they name, what they say, whom they let through."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest

from espalier_kube.netpol import Flow, parse, verdict
from espalier_local.policy_filter import ends, ruleset

NODE, OTHER_NODE = "10.89.9.2", "10.89.9.5"
NAMESPACES = [{"metadata": {"name": n, "labels": {"kubernetes.io/metadata.name": n}}} for n in ("a", "b")]


def pod(namespace: str, app: str, address: str, node: str = NODE, phase: str = "Running") -> dict[str, Any]:
    ports = [{"name": "web", "containerPort": 8080}, {"containerPort": 9}]
    return {
        "metadata": {"name": app, "namespace": namespace, "labels": {"app": app}},
        "spec": {"containers": [{"ports": ports}]},
        "status": {"podIP": address, "hostIP": node, "phase": phase},
    }


PODS = [
    pod("a", "client", "10.91.9.2"), pod("a", "server", "10.91.9.3"), pod("b", "server", "10.92.9.2", OTHER_NODE),
    pod("a", "mac", OTHER_NODE, OTHER_NODE), pod("a", "done", "10.91.9.9", phase="Succeeded"),
]  # fmt: skip


def policy(app: str, **spec: Any) -> dict[str, Any]:
    selector = {"podSelector": {"matchLabels": {"app": app}} if app else {}}
    return {"metadata": {"name": app or "all", "namespace": "a"}, "spec": selector | spec}


def rules(*policies: dict[str, Any]) -> str:
    return ruleset(NODE, ends(PODS, NAMESPACES), [parse(p) for p in policies])


def test_pods_without_an_address_of_their_own_and_ended_ones_are_nobody() -> None:
    assert [end.address for end in ends(PODS, NAMESPACES)] == ["10.91.9.2", "10.91.9.3", "10.92.9.2"]
    assert ends(PODS, NAMESPACES[1:])[0].pod == ends(PODS, NAMESPACES)[2].pod


def test_without_policies_nothing_is_asked() -> None:
    assert "jump" not in rules()


def test_what_was_dropped_outlives_the_rules_that_dropped_it() -> None:
    before, _, after = rules(policy("", policyTypes=["Egress"])).partition("flush table inet espalier-policies\n")
    assert "set dropped {" in before
    assert "set dropped {" not in after
    assert after.count("add @dropped { ip saddr . ip daddr . meta l4proto . th dport }\n  drop\n") == 2


def test_each_isolated_pod_of_the_node_has_a_chain_per_direction() -> None:
    text = rules(policy("", policyTypes=["Ingress", "Egress"]))
    assert re.findall(r"chain (\S+) \{", text) == [
        "egress-10.91.9.2", "ingress-10.91.9.2", "egress-10.91.9.3", "ingress-10.91.9.3", "forward",
    ]  # fmt: skip
    assert "ip saddr vmap { 10.91.9.2 : jump egress-10.91.9.2, 10.91.9.3 : jump egress-10.91.9.3 }" in text
    assert text.count("  drop\n") == 4


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, "return"),
        ({"ports": [{"port": 80}]}, "tcp dport { 80-80 } return"),
        ({"ports": [{"port": 80, "endPort": 90}, {"port": 85}]}, "tcp dport { 80-90 } return"),
        ({"ports": [{"port": "web"}]}, "tcp dport { 8080-8080 } return"),
        ({"ports": [{"protocol": "UDP"}]}, "udp dport { 1-65535 } return"),
        ({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}, "ip saddr { 10.91.9.2/32 } return"),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"ipBlock": {"cidr": "10.1.0.0/16"}}]},
            "ip saddr { 10.0.0.0/8 } return",
        ),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80}]},
            "ip saddr 10.0.0.0/8 ip saddr != { 10.1.0.0/16 } tcp dport { 80-80 } return",
        ),
    ],
    ids=["all", "a port", "ranges that overlap", "a named port", "a protocol", "pods", "blocks that overlap", "except"],
)
def test_what_a_rule_lets_through(rule: dict[str, Any], expected: str) -> None:
    chain = rules(policy("server", ingress=[rule])).split("chain ingress-10.91.9.3 {\n")[1].split("\n }\n")[0]
    assert [line.strip() for line in chain.splitlines()][1:-2] == [expected]


def test_a_rule_that_matches_nobody_lets_nothing_through() -> None:
    nobody = {"from": [{"podSelector": {"matchLabels": {"app": "nobody"}}}]}
    chain = rules(policy("server", ingress=[nobody])).split("chain ingress-10.91.9.3 {\n")[1].split("\n }\n")[0]
    lines = [line.strip() for line in chain.splitlines()]
    assert lines[0] == "ip saddr 10.91.9.3 return"
    assert lines[1].startswith("meta l4proto { tcp, udp } add @dropped")
    assert lines[2:] == ["drop"]


def test_the_rules_agree_with_the_evaluator_flow_by_flow() -> None:
    """Read back as nft reads them (first match wins), for every pair of pods and some ports."""
    policies = [
        policy("", policyTypes=["Ingress", "Egress"]),
        policy("client", egress=[{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8080}, {"port": "web"}]}]),
        policy("server", ingress=[{"from": [{"ipBlock": {"cidr": "10.91.0.0/16"}}]}]),
    ]
    text, known = rules(*policies), ends(PODS, NAMESPACES)
    for source in known:
        for destination in known:
            for port in (8080, 80):
                flow = Flow(source, destination, "TCP", port)
                assert passes(text, flow) is verdict(map(parse, policies), flow).allowed, flow


def passes(text: str, flow: Flow) -> bool:
    source, destination = flow.source, flow.destination
    for name, peer in ((f"egress-{source.address}", destination), (f"ingress-{destination.address}", source)):
        if f"chain {name} {{" in text:
            chain = text.split(f"chain {name} {{\n")[1].split("\n }\n")[0]
            if not any(line_matches(line, peer.address, flow.port) for line in chain.splitlines() if "return" in line):
                return False
    return True


def line_matches(line: str, address: str, port: int) -> bool:
    for negated, networks in re.findall(r"ip [sd]addr (!= )?(\{[^}]*\}|\S+)", line):
        inside = any(ipaddress.ip_address(address) in ipaddress.ip_network(n) for n in re.findall(r"[\d./]+", networks))
        if inside == bool(negated):
            return False
    ports = re.search(r"tcp dport \{([^}]*)\}", line)
    ranges = re.findall(r"(\d+)-(\d+)", ports[1]) if ports else [("0", "65535")]
    return any(int(first) <= port <= int(last) for first, last in ranges)
