"""NetworkPolicies allow exactly the edges of docs/reference/network.md; each rule is needed, none is wider."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import get_args

import pytest

from espalier_kube.netpol import Block, Direction, Flow, Peer, Policy, Port, Rule, Selector, parse, verdict
from tests.support import edges
from tests.support.charts import EVERY, VARIANTS, find, pods, rendered
from tests.support.edges import Side, Step

OPTIONS = (*EVERY, "--set", "coordinator.address=")
"""Every option, but for the pinned address: policies name the coordinator by its labels, as on a real cluster."""
EVERYWHERE = Block(ipaddress.ip_network("0.0.0.0/0"))


@cache
def known_policies() -> tuple[Policy, ...]:
    return tuple(parse(policy) for policy in edges.policies(rendered(*OPTIONS)))


@cache
def all_flows() -> tuple[Flow, ...]:
    return tuple(edges.flows(edges.parties(), edges.lint_values()))


def step(flow: Flow) -> Step:
    return (flow.source.address, flow.destination.address, flow.protocol, flow.port)


@cache
def our_addresses() -> frozenset[str]:
    return frozenset(party.end.address for party in edges.parties() if party.is_ours)


def allowed(policies: tuple[Policy, ...], flows: tuple[Flow, ...]) -> frozenset[Side]:
    """What each end of ours allows by itself: an end that leaves it to the other is too wide."""

    def sides(flow: Flow) -> Iterator[Side]:
        judged = verdict(policies, flow)
        if judged.egress.allowed and flow.source.address in our_addresses():
            yield step(flow), "egress"
        if judged.ingress.allowed and flow.destination.address in our_addresses():
            yield step(flow), "ingress"

    return frozenset(side for flow in flows for side in sides(flow))


@cache
def declared() -> frozenset[Side]:
    return edges.expected(edges.declared(), edges.parties(), edges.lint_values())


def names(sides: frozenset[Side]) -> list[str]:
    """For a person: roles instead of addresses."""
    roles = {party.end.address: party.role for party in edges.parties()}
    return sorted({f"{roles[a]} -> {roles[b]} {protocol}/{port}: {side}" for (a, b, protocol, port), side in sides})


def test_every_end_of_the_table_exists() -> None:
    roles = {party.role for party in edges.parties()}
    assert {role for edge in edges.declared() for role in (edge.source, edge.destination)} <= roles
    assert all(edge.why for edge in edges.declared())


def test_the_policies_allow_exactly_the_declared_edges() -> None:
    found = allowed(known_policies(), all_flows())
    assert names(found - declared()) == []
    assert names(declared() - found) == []


# ---------------------------------------------------------------- one rule less, one rule wider
def narrower(rule: Rule) -> Iterator[tuple[str, Rule | None]]:
    """The rule without itself, without one of its peers, without one of its ports."""
    yield "dropped", None
    for field in ("peers", "ports"):
        several = getattr(rule, field) or ()
        for each in several if len(several) > 1 else ():
            yield f"without {each}", replace(rule, **{field: tuple(x for x in several if x is not each)})


def wider(rule: Rule) -> Iterator[tuple[str, Rule]]:
    """The rule with one of its limits gone."""
    if rule.peers is not None:
        yield "any peer", replace(rule, peers=None)
        for number, peer in enumerate(rule.peers):
            for what, looser in wider_peers(peer):
                yield what, replace(rule, peers=(*rule.peers[:number], looser, *rule.peers[number + 1 :]))
    if rule.ports is not None:
        yield "any port", replace(rule, ports=None)
        yield "a range of ports", replace(rule, ports=tuple(Port(p.protocol, 1, 65535) for p in rule.ports))


def wider_peers(peer: Peer) -> Iterator[tuple[str, Peer]]:
    if peer.block is not None:
        yield f"any address instead of {peer.block.network}", replace(peer, block=EVERYWHERE)
        return
    if peer.pods is not None and peer.pods != Selector():
        yield "any pod", replace(peer, pods=Selector())
    for number, (key, _) in enumerate(peer.pods.labels if peer.pods else ()):
        if key == "app.kubernetes.io/component":
            assert peer.pods is not None
            fewer = peer.pods.labels[:number] + peer.pods.labels[number + 1 :]
            yield f"pods without {key}", replace(peer, pods=replace(peer.pods, labels=fewer))
    if peer.namespaces != Selector():
        yield "any namespace", replace(peer, namespaces=Selector())


def mutants() -> Iterator[tuple[str, int, Direction, int, Rule | None, bool]]:
    """(id, policy, direction, rule, its mutant, whether it is narrower)."""
    for i, policy in enumerate(known_policies()):
        if policy.namespace == edges.COURSES[1]:
            continue  # the same rules as in the first
        for direction in get_args(Direction):
            for n, rule in enumerate(policy.rules(direction) or ()):
                place = f"{policy.name} {direction} {n}"
                for what, mutant in narrower(rule):
                    yield f"{place}: {what}", i, direction, n, mutant, True
                for what, looser in wider(rule):
                    yield f"{place}: {what}", i, direction, n, looser, False


def mutated(index: int, direction: Direction, number: int, mutant: Rule | None) -> tuple[Policy, ...]:
    policies = list(known_policies())
    rules = policies[index].rules(direction)
    assert rules is not None
    replaced = (*rules[:number], *(() if mutant is None else (mutant,)), *rules[number + 1 :])
    changed = replace(policies[index], **{direction: replaced})
    return (*policies[:index], changed, *policies[index + 1 :])


def concerned(policy: Policy) -> tuple[Flow, ...]:
    """The flows whose verdict can change with a policy: one end is a pod that it selects."""
    there = (p.end for p in edges.parties() if p.end.pod and p.end.pod.namespace == policy.namespace)
    chosen = {end.address for end in there if end.pod and policy.selector.matches(end.pod.labels)}
    return tuple(f for f in all_flows() if f.source.address in chosen or f.destination.address in chosen)


def test_every_rule_is_needed_and_none_could_be_wider_unseen() -> None:
    """Each rule, peer and port is taken away in turn, and each limit loosened: the declared edges must notice."""
    tried, unnoticed = 0, []
    by_policy = {i: concerned(policy) for i, policy in enumerate(known_policies())}
    steps = {i: frozenset(map(step, flows)) for i, flows in by_policy.items()}
    wished_by_policy = {i: frozenset(side for side in declared() if side[0] in steps[i]) for i in by_policy}
    for what, i, direction, number, mutant, is_narrower in mutants():
        tried += 1
        found = allowed(mutated(i, direction, number, mutant), by_policy[i])
        wished = wished_by_policy[i]
        if not (wished - found if is_narrower else found - wished):
            unnoticed.append(what)
    assert unnoticed == []
    assert tried > 100


@pytest.mark.parametrize(
    ("namespace", "direction"),
    [("espalier-system", "ingress"), ("espalier-system", "egress"), ("course-a", "ingress")],
)  # what the operator makes is shut in by espalier-names already, as far as egress goes
def test_without_the_default_nobody_would_be_shut_in(namespace: str, direction: Direction) -> None:
    """The default-deny policies hold for pods that no other policy knows."""
    policies = tuple(
        replace(p, **{direction: None}) if (p.namespace, p.name) == (namespace, "espalier-default-deny") else p
        for p in known_policies()
    )
    assert allowed(policies, all_flows()) - declared()


# ---------------------------------------------------------------- other values
def test_no_policy_is_made_where_they_are_switched_off() -> None:
    found = rendered("--set", "networkPolicies.enabled=false")
    assert [o for o in found if o["kind"] == "NetworkPolicy"] == []
    assert find(found, "ConfigMap", "espalier-job-policies")["data"]["policies.yaml"].strip() == "[]"


def test_edges_that_nobody_uses_are_not_open() -> None:
    """Without pools, a database and KEDA, as in the defaults, their rules are not there."""
    ingress = find(rendered(), "NetworkPolicy", "espalier-coordinator")["spec"]["ingress"]
    ports = {port["port"] for rule in ingress for port in rule["ports"]}
    assert ports == {50051, 8081}
    egress = find(rendered(), "NetworkPolicy", "espalier-coordinator")["spec"]["egress"]
    assert {port["port"] for rule in egress for port in rule["ports"]} == {443, 6443}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_pod_of_the_chart_is_selected_by_a_policy_of_its_own(variant: str) -> None:
    found = rendered(*VARIANTS[variant])
    selecting = [p for o in found if o["kind"] == "NetworkPolicy" if (p := parse(o)).selector != Selector()]
    for name, template in pods(found):
        own = [p.name for p in selecting if p.selector.matches(template["metadata"]["labels"])]
        assert len(own) == 2, f"{name}: {own}"


def test_the_operator_starts_again_when_the_policies_change() -> None:
    def checksum(*options: str) -> str:
        template = find(rendered(*options), "Deployment", "espalier-operator")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/job-policies"])

    assert checksum() != checksum("--set", "nodes.addresses={10.20.0.0/24}")
