"""Reading what the kernel says about connections, as the container lane's check of observed flows does."""

from __future__ import annotations

import pytest

from espalier_kube.netpol import End, Pod, Policy, parse
from espalier_local.addresses import Cables
from tests.support.charts import NAMESPACE
from tests.support.flows import UNUSED, Pair, Seen, declared_pairs, parse_dropped, parse_tracked, unproven

TRACKED = """\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.91.9.2 dst=10.0.0.7 sport=4 dport=80 src=10.91.9.3 dst=10.91.9.2 \
sport=8080 dport=4 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 24 src=10.91.9.2 dst=10.0.0.10 sport=5 dport=53 [UNREPLIED] src=10.89.9.1 dst=10.91.9.2 \
sport=53 dport=5 mark=0 zone=0 use=2
ipv4     2 icmp     1 29 src=10.91.9.2 dst=10.91.9.3 type=8 code=0 id=1 src=10.91.9.3 dst=10.91.9.2 type=0 code=0 id=1
"""
DROPPED = """{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "dropped",
"elem": [{"concat": ["10.91.9.2", "10.91.9.3", "tcp", 8080]}]}}]}"""
CABLES = Cables(9)


def test_the_answering_end_is_the_destination_whatever_was_dialled() -> None:
    assert parse_tracked(TRACKED) == {("10.91.9.2", "10.91.9.3", "TCP", 8080), ("10.91.9.2", "10.89.9.1", "UDP", 53)}


def test_the_filters_memory() -> None:
    assert parse_dropped(DROPPED) == {("10.91.9.2", "10.91.9.3", "TCP", 8080)}
    assert parse_dropped(DROPPED.replace('"elem"', '"other"')) == set()


def end(component: str, namespace: str = "class") -> End:
    """A pod of ours."""
    marks = {"app.kubernetes.io/component": component}
    return End("10.91.9.7", Pod(namespace, component, marks, {}))


WORKER, SERVER, COORDINATOR = end("worker"), end("mlx"), end("coordinator", NAMESPACE)
CLIENT = End("10.91.9.8", Pod("class", "mine", {"espalier.dev/model-client": "true"}, {}))
SWITCH, CABLE = End(CABLES.server), End(CABLES.host(2))


@pytest.mark.parametrize(("flow", "used"), [
    ((WORKER, SERVER, "TCP", 8100), {("worker", "model server")}),
    ((WORKER, SERVER, "TCP", 8082), set()),
    ((WORKER, end("mlx", "other"), "TCP", 8100), set()),
    ((end("worker", NAMESPACE), SERVER, "TCP", 8100), {("pool worker", "model server")}),
    ((CLIENT, SERVER, "TCP", 8100), {("model client", "model server")}),
    ((WORKER, CABLE, "TCP", 8100), {("worker", "Mac")}),
    ((COORDINATOR, CABLE, "TCP", 5432), {("coordinator", "database")}),
    ((COORDINATOR, SWITCH, "TCP", 6443), {("coordinator", "API server")}),
    ((COORDINATOR, SWITCH, "UDP", 53), {("coordinator", "DNS")}),
    ((SWITCH, COORDINATOR, "TCP", 8443), {("API server", "coordinator")}),
    ((SWITCH, COORDINATOR, "TCP", 8081), set()),
], ids=["model", "another port", "another namespace", "pool", "client", "Mac", "database", "API", "names", "scaling",
        "another port of the coordinator"])
def test_a_flow_uses_the_edge_whose_ends_and_port_it_has(flow: tuple[End, End, str, int], used: set[Pair]) -> None:
    assert Seen((flow,), frozenset(), (), CABLES).used() == used


SHUT = parse({"metadata": {"name": "shut", "namespace": "class"}, "spec": {"podSelector": {}}})


@pytest.mark.parametrize(("port", "policies", "said"), [
    (8100, (), []),
    (8101, (), ["dropped: 10.91.9.7 -> 10.91.9.8 TCP/8100"]),
    (8100, (SHUT,), ["dropped: 10.91.9.7 -> 10.91.9.8 TCP/8100"]),
], ids=["came through, as it may", "another came through", "came through before it was forbidden"])
def test_a_drop_is_refused_unless_the_same_may_and_did_come_through(
    port: int, policies: tuple[Policy, ...], said: list[str]
) -> None:
    dropped = frozenset({(WORKER.address, CLIENT.address, "TCP", 8100)})
    assert Seen(((WORKER, CLIENT, "TCP", port),), dropped, policies, CABLES).refused() == said


A, B = ("a", "x"), ("b", "x")


@pytest.mark.parametrize(("used", "excused", "said"), [
    ({A, B}, {}, []),
    ({A}, {B: "there are none"}, []),
    ({A}, {}, ["unused: b -> x"]),
    ({A, B}, {B: "there are none"}, ["excused, yet used: b -> x: there are none"]),
    ({A, B}, {("c", "x"): "there are none"}, ["excused, yet not declared: c -> x"]),
], ids=["all used", "one excused", "no reason", "a stale reason", "a reason for nothing"])
def test_every_edge_has_a_use_or_a_reason_that_holds(
    used: set[Pair], excused: dict[Pair, str], said: list[str]
) -> None:
    assert unproven({A, B}, used, excused=excused) == said


def test_only_declared_edges_are_excused() -> None:
    assert UNUSED.keys() <= declared_pairs()
