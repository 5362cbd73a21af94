"""Loopback ranges: each cluster has a 127.N.0.0/16 of its own, so that several live side by side on standard ports."""

from __future__ import annotations

import errno
import hashlib
import os
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from espalier_kit.errors import Misconfigured

ETCD_PORT, ETCD_PEER_PORT, API_PORT, CONTROLLER_PORT, SCHEDULER_PORT = 2379, 2380, 6443, 10257, 10259
CONTROL_PLANE_PORTS = (ETCD_PORT, ETCD_PEER_PORT, API_PORT, CONTROLLER_PORT, SCHEDULER_PORT)
SWITCH = "esp"
"""How the name of every cluster's switch begins."""
_FIRST, _LAST = 1, 254  # 127.0/16 is the machine's own localhost


@dataclass(frozen=True, slots=True)
class Range:
    """127.N.0.0/16. Node k, counted from 1, owns 127.N.k.0/24."""

    n: int

    @property
    def cidr(self) -> str:
        """All of it."""
        return f"127.{self.n}.0.0/16"

    @property
    def control_plane(self) -> str:
        """Where etcd, the API server, the controller manager and the scheduler listen."""
        return f"127.{self.n}.0.1"

    @property
    def coordinator(self) -> str:
        """The coordinator's fixed pod address, on node 1."""
        return f"127.{self.n}.1.10"

    def node(self, k: int) -> str:
        """The address of node k."""
        return f"127.{self.n}.{k}.1"

    def pods(self, k: int) -> str:
        """The pod range of node k."""
        return f"127.{self.n}.{k}.0/24"


def candidates(name: str) -> Iterator[Range]:
    """All ranges, beginning with the one that the name's digest gives."""
    count = _LAST - _FIRST + 1
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % count
    return (Range(_FIRST + (start + i) % count) for i in range(count))


def choose(name: str, taken: Collection[int], blocker: Callable[[Range], OSError | None]) -> Range:
    """The first candidate that no other cluster has and whose ports are free; `blocker` says what stands in the way.

    Raises `Misconfigured` with one sentence when none is free, which means that a program listens on all addresses.
    """
    first: OSError | None = None
    for candidate in candidates(name):
        if candidate.n in taken:
            continue
        problem = blocker(candidate)
        if problem is None:
            return candidate
        first = first or problem
        if problem.errno == errno.EADDRNOTAVAIL:
            break
    raise Misconfigured(_sentence(first), reason="AddressInUse")


def port_blocker(address_range: Range) -> OSError | None:
    """Try to bind each control-plane port; the first error, its message naming address and port, or None."""
    for port in CONTROL_PLANE_PORTS:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address_range.control_plane, port))
            except OSError as error:
                return OSError(error.errno, f"{address_range.control_plane}:{port}")
    return None


def _sentence(problem: OSError | None) -> str:
    if problem is None:
        return "every loopback range is taken by another local cluster; stop one with espalier local down --name NAME"
    address, _, port = (problem.strerror or "").partition(":")
    if problem.errno == errno.EADDRNOTAVAIL and sys.platform == "darwin":
        return f"{address} cannot be bound; macOS needs the address first: sudo ifconfig lo0 alias {address}"
    if problem.errno == errno.EADDRINUSE:
        return f"port {port} is in use on every loopback address; stop what listens on 0.0.0.0:{port} and try again"
    return f"{address}:{port} cannot be bound: {os.strerror(problem.errno or 0)}"


@dataclass(frozen=True, slots=True)
class Cables:
    """10.89.N.0/24, the cables of cluster N, which meet in a switch of this machine; its address is the API server's.

    Host k, counted from 1, is 10.89.N.(k+1), its pods 10.(90+k).N.0/24: no two clusters and no two hosts share any.
    """

    n: int

    @property
    def switch(self) -> str:
        """The switch's network device, and how the name of everything else of this cluster begins."""
        return f"{SWITCH}{self.n}"

    @property
    def server(self) -> str:
        """This machine's own address on the switch, where the API server listens."""
        return f"10.89.{self.n}.1"

    @property
    def cidr(self) -> str:
        """All addresses of hosts."""
        return f"10.89.{self.n}.0/{self.prefix}"

    @property
    def prefix(self) -> int:
        """The length of the network's prefix."""
        return 24

    def host(self, k: int) -> str:
        """The address of host k."""
        return f"10.89.{self.n}.{k + 1}"

    def pods(self, k: int) -> str:
        """The pod network of host k."""
        return f"10.{90 + k}.{self.n}.0/24"

    def plug(self, k: int) -> str:
        """The end of host k's cable in the switch; a device's name has at most 15 characters."""
        return f"{self.switch}-{k}"

    def namespace(self, name: str) -> str:
        """The network namespace of the host of that name."""
        return f"{self.switch}-{name}"


def cable_blocker(cables: Cables) -> OSError | None:
    """Whether this machine has the switch's address already: it is some other network's then."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((cables.server, 0))
        except OSError:
            return None
    return OSError(errno.EADDRINUSE, f"{cables.server}:0")
