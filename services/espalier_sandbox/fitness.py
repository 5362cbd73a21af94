"""Whether the container that we were put into confines anything: asked before the first command, answered in words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

TOKENS = (Path("/var/run/secrets/kubernetes.io/serviceaccount"), Path("/var/run/secrets/espalier"))
GVISOR_RELEASE = "4.4.0"
GVISOR_VERSION = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
"""What gVisor's kernel says of itself: it has been the same since its first release."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The process and its container, as `/proc` tells."""

    pid: int
    uid: int
    capabilities: int
    no_new_privileges: bool
    is_root_writable: bool
    tokens: tuple[str, ...]
    kernel: str
    """Release and version, as `uname` prints them."""


def look() -> Facts:
    """Now."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    name = os.uname()
    return Facts(
        pid=os.getpid(),
        uid=os.geteuid(),
        capabilities=int(status.get("CapBnd", "0"), 16) | int(status.get("CapEff", "0"), 16),
        no_new_privileges=status.get("NoNewPrivs", "1").strip() == "1",
        is_root_writable=not os.statvfs("/").f_flag & os.ST_RDONLY,
        tokens=tuple(str(path) for path in TOKENS if path.exists()),
        kernel=f"{name.release} {name.version}",
    )


def problems(facts: Facts, *, runtime: str) -> tuple[str, ...]:
    """Why nothing may run here; none: it may. `runtime` is `container` or `gvisor`. Pure."""
    found = []
    if facts.pid != 1:
        found.append("it is not the first process of a container of its own")
    if facts.uid == 0:
        found.append("it runs as root: set runAsUser")
    if facts.capabilities:
        found.append("it has capabilities: drop ALL")
    if not facts.no_new_privileges:
        found.append("it may gain privileges: set allowPrivilegeEscalation to false")
    if facts.is_root_writable:
        found.append("its root file system is writable: set readOnlyRootFilesystem")
    found += [f"a token is mounted at {path}: keep it in the worker's container" for path in facts.tokens]
    if runtime == "gvisor" and facts.kernel != f"{GVISOR_RELEASE} {GVISOR_VERSION}":
        found.append(f"gVisor was asked for, but the kernel here is {facts.kernel}")
    return tuple(found)
