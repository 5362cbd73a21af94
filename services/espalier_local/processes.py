"""Hosts that are a node agent each, every pod a native process of this machine. No privileges, loopback only."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from espalier_local.addresses import API_PORT, Range
from espalier_local.control import Control, is_phase
from espalier_local.files import write_atomically
from espalier_local.hosts import HostProfile, Network
from espalier_local.supervised import Phase, ProcessSpec, Wish

NODE_ORDER = 3
LEASE_DURATION_S, LEASE_RENEW_S, STATUS_REFRESH_S = 8, 2, 3
PINNED_ADDRESSES = 15
"""The first addresses of a node's range are for the node itself and for pods that ask for one, as the coordinator."""


@dataclass(frozen=True, slots=True)
class ProcessHost:
    """A `Host` under the cluster's supervisor; `k` counts from 1 and gives the addresses.

    A cut is SIGSTOP to the agent: it renews no Lease, reports no pod and answers no request, while its pods run on
    under their own shims. Unlike a pulled cable it leaves the pods' own connections alive.
    """

    profile: HostProfile
    k: int
    address_range: Range
    control: Control
    bootstrap_kubeconfig: Path
    network: Network | None = None
    """Where the agent runs instead of on this machine's loopback."""

    @property
    def name(self) -> str:
        """The Node's name."""
        return self.profile.name

    def start(self) -> None:
        """Write the agent's settings and wish it to run."""
        settings = self.control.layout.nodes / self.name / "node.yaml"
        settings.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(settings, yaml.safe_dump(self.settings()))
        self.control.put([self._spec(settings)])
        self.control.wait(self.name, is_phase(Phase.RUNNING))

    def stop(self) -> None:
        """Wish it to stop."""
        self.control.wish(self.name, Wish.STOP)
        self.control.wait(self.name, is_phase(Phase.STOPPED, Phase.WAITING))

    def cut(self) -> None:
        """Wish it to pause."""
        self.control.wish(self.name, Wish.PAUSE)
        self.control.wait(self.name, is_phase(Phase.PAUSED))

    def mend(self) -> None:
        """Wish it to run again."""
        self.control.wish(self.name, Wish.RUN)
        self.control.wait(self.name, is_phase(Phase.RUNNING))

    def settings(self) -> dict[str, Any]:
        """The agent's YAML (`espalier_node.settings.NodeSettings`)."""
        is_mac = self.profile.kind == "mlx"
        return {
            "name": self.name,
            "kind": self.profile.kind,
            "simulated": is_mac and sys.platform != "darwin",
            **({"profile": {"chip": self.profile.chip, "memory_gb": self.profile.memory_gb}} if is_mac else {}),
            **self._addresses(),
            "state_dir": str(self.control.layout.nodes / self.name / "state"),
            "bootstrap_kubeconfig": str(self.bootstrap_kubeconfig),
            "lease_duration_s": LEASE_DURATION_S,
            "lease_renew_s": LEASE_RENEW_S,
            "status_refresh_s": STATUS_REFRESH_S,
        }

    def _addresses(self) -> dict[str, Any]:
        if self.network is not None:
            return {"address": self.network.address}
        return {
            "address": self.address_range.node(self.k),
            "pod_range": self.address_range.pods(self.k),
            "pod_range_reserved": PINNED_ADDRESSES,
        }

    def _spec(self, settings: Path) -> ProcessSpec:
        # -P: the cluster's directory, which holds keys, must not become a place where pods find packages.
        command = (sys.executable, "-P", "-m", "espalier_node")
        return ProcessSpec(
            name=self.name,
            argv=self.network.inside(*command) if self.network else command,
            order=NODE_ORDER,
            environment={
                **(self.network.environment if self.network else {}), "ESPALIER_NODE_CONFIG": str(settings)
            },
            after=(self.network.server if self.network else self.address_range.control_plane, API_PORT),
        )  # fmt: skip
