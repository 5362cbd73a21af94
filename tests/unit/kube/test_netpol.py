"""NetworkPolicies: the cases that are easily got wrong, and agreement with a naive reading of the raw objects."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espalier_kube.netpol import End, Flow, Half, Isolation, Pod, isolation, parse, verdict

NAMESPACES = {"a": {"team": "red"}, "b": {"team": "blue"}}
NODE = "10.0.0.1"


def pod(namespace: str, name: str, address: str, **labels: str) -> End:
    ports = (("web", "TCP", 8080 if namespace == "a" else 9090), ("dns", "UDP", 53))
    return End(address, Pod(namespace, name, labels, NAMESPACES[namespace], frozenset({NODE}), ports))


CLIENT = pod("a", "client", "10.1.0.1", app="client")
SERVER = pod("a", "server", "10.1.0.2", app="server")
OTHER = pod("b", "server", "10.1.1.2", app="server")
OUTSIDE, INSIDE_EXCEPT, ON_NODE = End("192.168.0.1"), End("192.168.7.1"), End(NODE)
BLUE, APP_X = {"matchLabels": {"team": "blue"}}, {"matchLabels": {"app": "x"}}
A_BLOCK = {"ingress": [{"from": [{"ipBlock": {"cidr": "192.168.0.0/16", "except": ["192.168.7.0/24"]}}]}]}
ENDS = (CLIENT, SERVER, OTHER, OUTSIDE, INSIDE_EXCEPT, ON_NODE)


def policy(selector: dict[str, Any] | None = None, *, namespace: str = "a", **spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "namespace": namespace}
    return {"metadata": meta, "spec": {"podSelector": selector or {}, **spec}}


def half(direction: str, source: End, destination: End, *policies: dict[str, Any], port: int = 8080) -> Half:
    judged = verdict(map(parse, policies), Flow(source, destination, "TCP", port))
    return judged.ingress if direction == "ingress" else judged.egress


@pytest.mark.parametrize(
    ("spec", "source", "allowed"),
    [
        ({"ingress": []}, CLIENT, False),
        ({}, CLIENT, False),
        ({"policyTypes": ["Egress"]}, CLIENT, True),
        ({"ingress": [{}]}, OTHER, True),
        ({"ingress": [{"from": []}]}, OTHER, True),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, CLIENT, True),
        ({"ingress": [{"from": [{"podSelector": {}}]}]}, OTHER, False),
        ({"ingress": [{"from": [{"namespaceSelector": {}}]}]}, OTHER, True),
        ({"ingress": [{"from": [{"namespaceSelector": {}}]}]}, OUTSIDE, False),
        ({"ingress": [{"from": [{"namespaceSelector": BLUE, "podSelector": APP_X}]}]}, OTHER, False),
        ({"ingress": [{"from": [{"namespaceSelector": BLUE}, {"podSelector": APP_X}]}]}, OTHER, True),
        (A_BLOCK, OUTSIDE, True),
        (A_BLOCK, INSIDE_EXCEPT, False),
        ({"ingress": [{"ports": [{"port": 8080}]}]}, CLIENT, True),
        ({"ingress": [{"ports": [{"port": 8080, "protocol": "UDP"}]}]}, CLIENT, False),
        ({"ingress": [{"ports": [{"port": 8000, "endPort": 8080}]}]}, CLIENT, True),
        ({"ingress": [{"ports": [{"port": 8000, "endPort": 8079}]}]}, CLIENT, False),
        ({"ingress": [{"ports": [{"port": "web"}]}]}, CLIENT, True),
        ({"ingress": [{"ports": [{"port": "dns"}]}]}, CLIENT, False),
        ({"ingress": []}, ON_NODE, True),
        ({"ingress": []}, SERVER, True),
    ],
    ids=[
        "no rules", "no section", "only egress", "an empty rule", "an empty from", "own namespace", "not another's",
        "any namespace", "no pod at all", "both selectors", "either selector", "in the block", "in its exception",
        "the port", "another protocol", "in the range", "past the range", "the named port", "a port named otherwise",
        "its own node", "itself",
    ],
)  # fmt: skip
def test_ingress(spec: dict[str, Any], source: End, allowed: bool) -> None:
    assert half("ingress", source, SERVER, policy({"matchLabels": {"app": "server"}}, **spec)).allowed is allowed


def test_egress_is_isolated_only_when_the_section_says_so() -> None:
    assert half("egress", CLIENT, SERVER, policy(ingress=[])).allowed
    assert not half("egress", CLIENT, SERVER, policy(policyTypes=["Egress"])).allowed
    assert not half("egress", CLIENT, SERVER, policy(egress=[{"ports": [{"port": 1}]}])).allowed


def test_a_named_port_of_egress_is_the_destinations() -> None:
    to_web = policy(egress=[{"ports": [{"port": "web"}]}])
    assert half("egress", CLIENT, SERVER, to_web, port=8080).allowed
    assert not half("egress", CLIENT, OTHER, to_web, port=8080).allowed
    assert half("egress", CLIENT, OTHER, to_web, port=9090).allowed


def test_policies_add_up_and_say_which_rule_it_was() -> None:
    deny, allow = policy(ingress=[]), policy(ingress=[{"ports": [{"port": 1}]}, {"from": [{"podSelector": {}}]}])
    assert half("ingress", CLIENT, SERVER, deny, allow).because == "a/p ingress rule 1"
    assert half("ingress", CLIENT, SERVER, deny).because == "no ingress rule of a/p"


def test_an_operator_that_nobody_knows_is_an_error() -> None:
    odd = policy({"matchExpressions": [{"key": "app", "operator": "Like"}]}, ingress=[])
    with pytest.raises(ValueError, match="Like"):
        half("ingress", CLIENT, SERVER, odd)


# ---------------------------------------------------------------- a naive reading of the raw objects
def oracle(policies: list[dict[str, Any]], flow: Flow) -> bool:
    """Straight from the API reference, object by object; shares no code with the module."""
    return _oracle_half(policies, flow, "Ingress", flow.destination, flow.source) and _oracle_half(
        policies, flow, "Egress", flow.source, flow.destination
    )


def _oracle_half(policies: list[dict[str, Any]], flow: Flow, kind: str, own: End, peer: End) -> bool:
    if own.pod is None or own.address == peer.address or peer.address == NODE:
        return True
    key, side = ("ingress", "from") if kind == "Ingress" else ("egress", "to")
    isolated = False
    for each in policies:
        spec = each["spec"]
        types = spec.get("policyTypes")
        if not types:
            types = ["Ingress"] + (["Egress"] if spec.get("egress") else [])
        if each["metadata"]["namespace"] != own.pod.namespace or kind not in types:
            continue
        if not _oracle_labels(spec["podSelector"], own.pod.labels):
            continue
        isolated = True
        for rule in spec.get(key) or []:
            peers, ports = rule.get(side) or [], rule.get("ports") or []
            peer_ok = not peers or any(_oracle_peer(p, peer, each["metadata"]["namespace"]) for p in peers)
            if peer_ok and (not ports or any(_oracle_port(p, flow) for p in ports)):
                return True
    return not isolated


def _oracle_labels(selector: dict[str, Any], labels: Any) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if key not in labels or labels[key] != value:
            return False
    for term in selector.get("matchExpressions", []):
        present, operator = term["key"] in labels, term["operator"]
        hit = present and labels[term["key"]] in term.get("values", [])
        if not {"In": hit, "NotIn": not hit, "Exists": present, "DoesNotExist": not present}[operator]:
            return False
    return True


def _oracle_peer(peer: dict[str, Any], end: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        def within(cidr: str) -> bool:
            base, bits = cidr.split("/")
            shift = 32 - int(bits)
            return int(ipaddress.ip_address(end.address)) >> shift == int(ipaddress.ip_address(base)) >> shift

        block = peer["ipBlock"]
        return within(block["cidr"]) and not any(within(cidr) for cidr in block.get("except", []))
    if end.pod is None:
        return False
    if "namespaceSelector" in peer:
        if not _oracle_labels(peer["namespaceSelector"], NAMESPACES[end.pod.namespace]):
            return False
    elif end.pod.namespace != namespace:
        return False
    return "podSelector" not in peer or _oracle_labels(peer["podSelector"], end.pod.labels)


def _oracle_port(port: dict[str, Any], flow: Flow) -> bool:
    if port.get("protocol", "TCP") != flow.protocol:
        return False
    number = port.get("port")
    if number is None:
        return True
    if isinstance(number, str):
        found = flow.destination.pod
        return found is not None and (number, flow.protocol, flow.port) in found.ports
    return flow.port in range(number, port.get("endPort", number) + 1)


LABELS = {"app": ["client", "server", "none"], "team": ["red", "blue"]}
TERM = st.sampled_from(sorted(LABELS)).flatmap(
    lambda key: st.one_of(
        st.fixed_dictionaries({
            "key": st.just(key), "operator": st.sampled_from(["In", "NotIn"]),
            "values": st.lists(st.sampled_from(LABELS[key]), min_size=1, max_size=2),
        }),
        st.fixed_dictionaries({"key": st.just(key), "operator": st.sampled_from(["Exists", "DoesNotExist"])}),
    )
)
SELECTOR = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"matchLabels": st.dictionaries(
        st.just("app"), st.sampled_from(LABELS["app"]), min_size=1
    )}),
    st.fixed_dictionaries({"matchExpressions": st.lists(TERM, min_size=1, max_size=2)}),
)
BLOCK = st.sampled_from([
    {"cidr": "0.0.0.0/0"}, {"cidr": "192.168.0.0/16", "except": ["192.168.7.0/24"]}, {"cidr": "10.1.0.2/32"},
    {"cidr": "10.1.0.0/16", "except": ["10.1.1.0/24"]},
])
PEER = st.one_of(
    BLOCK.map(lambda block: {"ipBlock": block}),
    SELECTOR.map(lambda pods: {"podSelector": pods}),
    SELECTOR.map(lambda namespaces: {"namespaceSelector": namespaces}),
    st.fixed_dictionaries({"podSelector": SELECTOR, "namespaceSelector": SELECTOR}),
)
PORT = st.one_of(
    st.fixed_dictionaries({"protocol": st.sampled_from(["TCP", "UDP"])}),
    st.fixed_dictionaries({"port": st.sampled_from([53, 8080, 9090, "web", "dns"])}),
    st.fixed_dictionaries({"port": st.just("dns"), "protocol": st.just("UDP")}),
    st.fixed_dictionaries({"port": st.just(8000), "endPort": st.sampled_from([8080, 9090])}),
)


def rules(side: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(
        st.fixed_dictionaries({}, optional={side: st.lists(PEER, max_size=2), "ports": st.lists(PORT, max_size=2)}),
        max_size=2,
    )


POLICY = st.builds(
    lambda namespace, spec: policy(spec.pop("podSelector"), namespace=namespace, **spec),
    st.sampled_from(sorted(NAMESPACES)),
    st.fixed_dictionaries(
        {"podSelector": SELECTOR},
        optional={
            "policyTypes": st.lists(st.sampled_from(["Ingress", "Egress"]), min_size=1, max_size=2, unique=True),
            "ingress": rules("from"), "egress": rules("to"),
        },
    ),
)
FLOW = st.builds(
    Flow, st.sampled_from(ENDS), st.sampled_from(ENDS), st.sampled_from(["TCP", "UDP"]),
    st.sampled_from([53, 8080, 9090, 1]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(POLICY, max_size=3), FLOW)
def test_it_agrees_with_the_naive_reading(policies: list[dict[str, Any]], flow: Flow) -> None:
    assert verdict(map(parse, policies), flow).allowed is oracle(policies, flow)


@settings(max_examples=400, deadline=None)
@given(st.lists(POLICY, max_size=3), FLOW)
def test_what_a_filter_gets_allows_exactly_the_same(policies: list[dict[str, Any]], flow: Flow) -> None:
    """Resolved to addresses and ports, as the filter of a node needs it, nothing is lost and nothing added."""
    known = [parse(p) for p in policies]

    def passes(direction: str, own: End, peer: End) -> bool:
        if own.pod is None or own.address == peer.address or peer.address == NODE:
            return True
        found: Isolation = isolation(known, own.pod, ENDS)
        allowances = found.ingress if direction == "ingress" else found.egress
        return allowances is None or any(
            (a.blocks is None or any(b.holds(ipaddress.ip_address(peer.address)) for b in a.blocks))
            and (a.ports is None or any(p == flow.protocol and i <= flow.port <= j for p, i, j in a.ports))
            for a in allowances
        )

    both = passes("egress", flow.source, flow.destination) and passes("ingress", flow.destination, flow.source)
    assert both is verdict(known, flow).allowed
