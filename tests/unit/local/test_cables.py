"""What `ip` is told: addresses of each cluster's own, commands that may be repeated, a removal that takes only ours."""

from __future__ import annotations

import ipaddress

import pytest

from espalier_local.addresses import Cables
from espalier_local.cables import (
    cut_command,
    host_commands,
    inside,
    mend_command,
    remaining,
    removal_commands,
    switch_commands,
    switches,
)
from espalier_local.hosts import CONTAINER_PROFILES, PROFILES, container_profiles

CABLES = Cables(7)
LINUX = (1, 4, 5)


def networks(cables: Cables) -> list[ipaddress.IPv4Network]:
    own = ipaddress.ip_network(f"{cables.server}/{cables.prefix}", strict=False)
    pods = [ipaddress.ip_network(cables.pods(k)) for k in range(1, len(CONTAINER_PROFILES) + 1)]
    return [found for found in (own, *pods) if isinstance(found, ipaddress.IPv4Network)]


def test_no_two_networks_of_two_clusters_overlap() -> None:
    found = networks(Cables(7)) + networks(Cables(8)) + [ipaddress.IPv4Network("10.0.0.0/24")]
    assert len(found) == 13
    assert not any(a.overlaps(b) for i, a in enumerate(found) for b in found[:i])


def test_every_host_is_on_the_clusters_network() -> None:
    own = networks(CABLES)[0]
    hosts = [CABLES.host(k) for k in range(1, len(CONTAINER_PROFILES) + 1)]
    assert len({CABLES.server, *hosts}) == len(hosts) + 1
    assert all(ipaddress.ip_address(host) in own for host in hosts)


def test_names_of_devices_fit_the_kernel() -> None:
    assert max(len(Cables(254).plug(k)) for k in range(1, 6)) <= 15


def test_more_linux_hosts_change_no_others_address() -> None:
    order = {profile: k for k, profile in enumerate(CONTAINER_PROFILES)}
    assert container_profiles(1) == PROFILES
    for linux in (1, 2, 3):
        found = container_profiles(linux)
        assert sum(profile.kind == "linux" for profile in found) == linux
        assert [order[profile] for profile in found] == sorted(order[profile] for profile in found)


def test_a_port_forwards_at_once() -> None:
    words = switch_commands(CABLES, LINUX)[0]
    assert words[words.index("forward_delay") + 1] == "0"


def test_the_machine_reaches_every_pod() -> None:
    routes = {c[3]: c[5] for c in switch_commands(CABLES, LINUX) if c[1] == "route"}
    assert routes == {CABLES.pods(k): CABLES.host(k) for k in LINUX}


@pytest.mark.parametrize("k", [1, 2], ids=["linux", "mac"])
def test_a_host_reaches_services_and_the_pods_of_others_and_nothing_else(k: int) -> None:
    routes = {c[5]: c[7] for c in host_commands(CABLES, "host", k, LINUX) if c[3] == "route"}
    assert routes == {"10.0.0.0/24": CABLES.server, **{CABLES.pods(j): CABLES.host(j) for j in LINUX if j != k}}


def test_only_what_is_not_there_is_added() -> None:
    commands = host_commands(CABLES, "linux-1", 1, LINUX)
    first = [command for command in commands if remaining(command, [], [])]
    again = [command for command in commands if remaining(command, ["esp7-1"], ["esp7-linux-1"])]
    assert first == commands
    assert [command for command in commands if command not in again] == commands[:2]
    assert not any("add" in command for command in again)


def test_a_cut_pulls_the_plug_of_that_host() -> None:
    assert cut_command(CABLES, 2) == ("ip", "link", "set", "esp7-2", "down")
    assert mend_command(CABLES, 2) == ("ip", "link", "set", "esp7-2", "up")


def test_removal_takes_the_clusters_own_and_the_switch_last() -> None:
    devices = ["eth0", "esp7", "esp7-1", "esp70", "esp70-1", "esp7-2"]
    namespaces = ["esp7-linux-1", "esp70-linux-1", "theirs"]
    assert removal_commands(CABLES, devices, namespaces) == [
        ("ip", "link", "delete", "esp7-1"),
        ("ip", "link", "delete", "esp7-2"),
        ("ip", "netns", "delete", "esp7-linux-1"),
        ("ip", "link", "delete", "esp7"),
    ]
    assert removal_commands(CABLES, ["eth0"], ["theirs"]) == []


def test_switches_are_told_from_plugs_and_others() -> None:
    assert switches(["lo", "esp7", "esp7-1", "espresso0", "12", "esp"]) == ["esp7"]


def test_inside_leaves_sys_alone() -> None:
    assert inside("esp7-linux-1", "kubelet") == ("nsenter", "--net=/run/netns/esp7-linux-1", "kubelet")
