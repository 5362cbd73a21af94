"""gVisor on a Linux host of a local cluster, as RuntimeClass gvisor: pure builders."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from espalier_kube.cluster import RUNTIME_CLASS, Object
from espalier_kube.objects import metadata, typed

NAME = "gvisor"
"""The RuntimeClass."""
LABEL = "espalier.dev/gvisor"
"""Of nodes that have it."""
_HANDLER = "runsc"


@dataclass(frozen=True, slots=True)
class Gvisor:
    """Where its two programs are, and the file of its settings."""

    runsc: Path
    shim: Path
    config: Path
    root: Path
    """What it keeps of running containers."""


def runtime_config(gvisor: Gvisor) -> tuple[str, ...]:
    """Lines of containerd's configuration."""
    table = f'[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{_HANDLER}'
    return (
        f"{table}]",
        f"runtime_type = {json.dumps(str(gvisor.shim))}",
        f"{table}.options]",
        'TypeUrl = "io.containerd.runsc.v1.options"',
        f"ConfigPath = {json.dumps(str(gvisor.config))}",
    )


def settings(gvisor: Gvisor) -> str:
    """Of the shim: TOML."""
    return f"binary_name = {json.dumps(str(gvisor.runsc))}\nroot = {json.dumps(str(gvisor.root))}\n"


def objects() -> tuple[Object, ...]:
    """The RuntimeClass, for nodes that have it only."""
    scheduling = {"nodeSelector": {LABEL: "true"}}
    return (typed(RUNTIME_CLASS, metadata(NAME, None), handler=_HANDLER, scheduling=scheduling),)
