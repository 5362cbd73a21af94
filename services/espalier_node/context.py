"""What every pod worker shares: one bundle instead of ten arguments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from espalier_kit.clock import Clock
from espalier_kube.cluster import Cluster
from espalier_node.addresses import AddressBook
from espalier_node.events import Events
from espalier_node.machine.base import Machine
from espalier_node.metrics import Metrics
from espalier_node.runtime import Runtime
from espalier_node.settings import NodeSettings
from espalier_node.steps import Limits


@dataclass(frozen=True, slots=True)
class Context:
    """The node as a pod worker sees it."""

    settings: NodeSettings
    cluster: Cluster
    runtime: Runtime
    events: Events
    addresses: AddressBook
    metrics: Metrics
    clock: Clock
    api_server: tuple[str, str]
    """Host and port that pods find in KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT."""
    allocatable: dict[str, str]
    machine: Machine

    @property
    def limits(self) -> Limits:
        return Limits(self.settings.crash_backoff_first_s, self.settings.crash_backoff_longest_s)

    @property
    def host_ip(self) -> str:
        return str(self.settings.address)

    def pod_directory(self, uid: str) -> Path:
        """Where everything of one pod lies."""
        return self.settings.state_dir / "pods" / uid
