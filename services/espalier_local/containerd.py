"""Configuration of containerd and its pod network on a Linux host of a local cluster: pure builders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espalier_local.gvisor import Gvisor, runtime_config

CRI_NAMESPACE = "k8s.io"
SHIM_SOCKETS = Path("/run/containerd/s")
"""Where every containerd's shims listen; containerd knows no setting for it."""


@dataclass(frozen=True, slots=True)
class ContainerdPlan:
    """Where a containerd's files are."""

    directory: Path
    network: str
    """Name of the pod network, of this host alone."""
    pods: str
    """The pod network's addresses."""
    plugins: Path
    """Directory of the CNI plugins."""
    pause_image: str
    gvisor: Gvisor

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.directory / "containerd.toml"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.directory / "containerd.sock"

    @property
    def state(self) -> Path:
        """What it keeps of running containers."""
        return self.directory / "state"

    @property
    def network_config(self) -> Path:
        """The one file of the pod network's directory."""
        return self.directory / "cni" / "10-espalier.conflist"

    @property
    def sandboxes(self) -> Path:
        """One directory per container, named by its id, with the address of its shim."""
        return self.state / "io.containerd.runtime.v2.task" / CRI_NAMESPACE


def containerd_config(plan: ContainerdPlan) -> str:
    """TOML, version 2. All paths are the host's own; nothing is shared with a containerd of the machine's user."""
    quoted = json.dumps  # JSON strings are TOML strings
    lines = (
        "version = 2",
        f"root = {quoted(str(plan.directory / 'containerd'))}",
        f"state = {quoted(str(plan.state))}",
        "[grpc]",
        f"address = {quoted(str(plan.socket))}",
        '[plugins."io.containerd.internal.v1.opt"]',
        f"path = {quoted(str(plan.directory / 'opt'))}",
        '[plugins."io.containerd.grpc.v1.cri"]',
        f"sandbox_image = {quoted(plan.pause_image)}",
        "restrict_oom_score_adj = true",
        "netns_mounts_under_state_dir = true",
        'stream_server_address = "127.0.0.1"',
        '[plugins."io.containerd.grpc.v1.cri".cni]',
        f"bin_dir = {quoted(str(plan.plugins))}",
        f"conf_dir = {quoted(str(plan.network_config.parent))}",
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]',
        'runtime_type = "io.containerd.runc.v2"',
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]',
        "SystemdCgroup = false",
        f"Root = {quoted(str(plan.state / 'runc'))}",
        *runtime_config(plan.gvisor),
    )
    return "\n".join(lines) + "\n"


def network_config(plan: ContainerdPlan) -> dict[str, Any]:
    """CNI: a bridge on the host; pod addresses are routed, never rewritten, so that others see who speaks."""
    return {
        "cniVersion": "1.0.0",
        "name": plan.network,
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(plan.directory / "addresses"),
                    "ranges": [[{"subnet": plan.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def ctr(plan: ContainerdPlan, *words: str) -> tuple[str, ...]:
    """A command to this containerd."""
    return ("ctr", f"--address={plan.socket}", f"--namespace={CRI_NAMESPACE}", *words)
