"""Reading what the kernel says about connections, as the container lane's check of observed flows does."""

from __future__ import annotations

from tests.support.edges import declared
from tests.support.flows import UNUSED, parse_dropped, parse_tracked

TRACKED = """\
ipv4     2 tcp      6 431999 ESTABLISHED src=10.91.9.2 dst=10.0.0.7 sport=4 dport=80 src=10.91.9.3 dst=10.91.9.2 \
sport=8080 dport=4 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 24 src=10.91.9.2 dst=10.0.0.10 sport=5 dport=53 [UNREPLIED] src=10.89.9.1 dst=10.91.9.2 \
sport=53 dport=5 mark=0 zone=0 use=2
ipv4     2 icmp     1 29 src=10.91.9.2 dst=10.91.9.3 type=8 code=0 id=1 src=10.91.9.3 dst=10.91.9.2 type=0 code=0 id=1
"""
DROPPED = """{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"set": {"family": "inet", "name": "dropped",
"elem": [{"concat": ["10.91.9.2", "10.91.9.3", "tcp", 8080]}]}}]}"""


def test_the_answering_end_is_the_destination_whatever_was_dialled() -> None:
    assert parse_tracked(TRACKED) == {("10.91.9.2", "10.91.9.3", "TCP", 8080), ("10.91.9.2", "10.89.9.1", "UDP", 53)}


def test_the_filters_memory() -> None:
    assert parse_dropped(DROPPED) == {("10.91.9.2", "10.91.9.3", "TCP", 8080)}
    assert parse_dropped(DROPPED.replace('"elem"', '"other"')) == set()


def test_only_declared_edges_are_excused() -> None:
    edges = {(edge.source, edge.destination) for edge in declared()}
    sources = {source for source, _ in edges}
    assert {pair for pair in UNUSED if pair not in edges and (pair[1] or pair[0] not in sources)} == set()
