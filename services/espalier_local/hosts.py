"""A host of a local cluster, whatever it is made of: the seam between the cluster and its kinds of node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["process", "container"]
"""What a cluster's nodes are made of."""


class Network(Protocol):
    """A network of a host's own."""

    @property
    def address(self) -> str:
        """The host's address."""
        ...

    @property
    def server(self) -> str:
        """The API server's address, as the host reaches it."""
        ...

    @property
    def environment(self) -> Mapping[str, str]:
        """What a program needs in its environment there."""
        ...

    def inside(self, *command: str) -> tuple[str, ...]:
        """The command as it runs there."""
        ...


class Host(Protocol):
    """One machine to be, with a node on it. Each call returns when it is done and may be repeated."""

    @property
    def name(self) -> str:
        """The Node's name."""
        ...

    def start(self) -> None:
        """Switch it on; the Node becomes Ready some time later."""
        ...

    def stop(self) -> None:
        """Switch it off, gracefully."""
        ...

    def cut(self) -> None:
        """Take it off the network: the cluster hears nothing from it, while its pods go on."""
        ...

    def mend(self) -> None:
        """Put it back on the network."""
        ...


@dataclass(frozen=True, slots=True)
class HostProfile:
    """What a host is. `chip` and `memory_gb` are played on a machine that is not such a Mac."""

    name: str
    kind: Literal["linux", "mlx"]
    chip: str = ""
    memory_gb: int = 0


PROFILES = (
    HostProfile("linux-1", "linux"),
    HostProfile("mac-studio-1", "mlx", chip="Apple M4 Max", memory_gb=128),
    HostProfile("mac-studio-2", "mlx", chip="Apple M3 Ultra", memory_gb=512),
)
"""In order: the k-th, counted from 1, has the k-th address range."""
CONTAINER_PROFILES = (*PROFILES, HostProfile("linux-2", "linux"), HostProfile("linux-3", "linux"))
"""Every host that can be on a cable, in the order of addresses: further Linux hosts come last and change no other's."""
MAX_LINUX = 3


def container_profiles(linux: int) -> tuple[HostProfile, ...]:
    """The Macs and so many Linux hosts."""
    names = {f"linux-{i}" for i in range(1, linux + 1)}
    return tuple(profile for profile in CONTAINER_PROFILES if profile.kind == "mlx" or profile.name in names)
