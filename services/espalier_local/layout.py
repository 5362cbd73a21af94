"""The files of one cluster's directory: what supervisor and clients agree on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MARKER = "ESPALIER_CLUSTER"
"""In the environment of every process of a cluster, its value the cluster's directory: how leftovers are found."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths only; nothing here touches the disk."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by whoever changes the cluster; beside the directory, since `down` removes that."""
        return self.root.parent / f".{self.root.name}.lock"

    @property
    def record(self) -> Path:
        """Name and address range."""
        return self.root / "cluster.json"

    @property
    def pki(self) -> Path:
        """Certificates and kubeconfigs."""
        return self.root / "pki"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def etcd(self) -> Path:
        """etcd's data."""
        return self.root / "etcd"

    @property
    def wishes(self) -> Path:
        """One JSON file per wished process."""
        return self.root / "processes"

    @property
    def states(self) -> Path:
        """Written by the supervisor only."""
        return self.root / "state.json"

    @property
    def supervisor_lock(self) -> Path:
        """Held as long as the supervisor lives."""
        return self.root / "supervisor.lock"

    @property
    def supervisor_pid(self) -> Path:
        """The supervisor's process id."""
        return self.root / "supervisor.pid"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def nodes(self) -> Path:
        """One directory per node."""
        return self.root / "nodes"

    @property
    def volumes(self) -> Path:
        """Directories behind local PersistentVolumes."""
        return self.root / "volumes"

    @property
    def helm(self) -> Path:
        """Helm's own cache, configuration and data."""
        return self.root / "helm"

    def log(self, process: str) -> Path:
        """A process's log."""
        return self.logs / f"{process}.log"

    def wish(self, process: str) -> Path:
        """A process's wish."""
        return self.wishes / f"{process}.json"
