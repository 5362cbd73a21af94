"""Can this machine have real Linux nodes? One sentence says what is missing.

`python -m espalier_local.machine`: for them and their images; exit code 1 where something is.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import Misconfigured
from espalier_local.cables import SEARCH_PATH
from espalier_local.remains import PROC_MOUNTS, cgroup_roots

TOOLS = {
    "ip": "iproute2", "nsenter": "util-linux", "nft": "nftables", "containerd": "containerd", "ctr": "containerd",
    "containerd-shim-runc-v2": "containerd", "runc": "runc",
}  # fmt: skip
"""Program → Debian's package."""
BUILDERS = {"buildah": "buildah", "mmdebstrap": "mmdebstrap", "dpkg-deb": "dpkg"}
"""The same, of what makes images."""
PLUGINS = ("bridge", "host-local", "loopback", "portmap")
PLUGIN_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CONTROLLERS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Machine:
    """What matters of a machine."""

    platform: str
    is_root: bool
    has: Callable[[str], bool]
    plugins: Path | None
    controllers: Collection[str]


def look() -> Machine:
    """This machine."""
    return Machine(
        platform=sys.platform,
        is_root=os.geteuid() == 0,
        has=lambda tool: shutil.which(tool, path=SEARCH_PATH) is not None,
        plugins=find_plugins(),
        controllers=_controllers(),
    )


def problem(machine: Machine) -> str:
    """What is missing, as one sentence; empty when nothing is."""
    if machine.platform != "linux":
        return _otherwise("they need Linux's namespaces and control groups")
    if not machine.is_root:
        return _otherwise("they need root, for network namespaces and control groups; use sudo")
    packages = _lacking(machine, TOOLS)
    if machine.plugins is None:
        packages.add("containernetworking-plugins")
    if packages:
        return _otherwise(_install(packages))
    lacking = sorted(set(CONTROLLERS) - set(machine.controllers))
    if lacking:
        return _otherwise(f"the kernel offers no control group for {', '.join(lacking)}")
    return ""


def builder_problem(machine: Machine) -> str:
    """What is missing for images to be built here, as one sentence; empty when nothing is."""
    if packages := _lacking(machine, BUILDERS):
        return f"images cannot be built here: {_install(packages)}"
    return "" if machine.is_root else "images cannot be built here: the builder needs root; use sudo"


def demand(machine: Machine) -> Path:
    """Raises `Misconfigured` with the sentence; else the plugins' directory."""
    if sentence := problem(machine):
        raise Misconfigured(sentence, reason="MachineUnfit")
    assert machine.plugins is not None
    return machine.plugins


def find_plugins() -> Path | None:
    """The directory that has every network plugin."""
    return next((path for path in PLUGIN_DIRECTORIES if all((path / name).exists() for name in PLUGINS)), None)


def _lacking(machine: Machine, tools: Mapping[str, str]) -> set[str]:
    return {package for tool, package in tools.items() if not machine.has(tool)}


def _install(packages: Collection[str]) -> str:
    listed = " ".join(sorted(packages))
    return f"{listed} must be installed (on Debian: apt install {listed})"


def _otherwise(reason: str) -> str:
    return f"container nodes cannot run here: {reason}; --nodes process works without"


def _controllers() -> set[str]:
    try:
        roots = cgroup_roots(PROC_MOUNTS.read_text())
    except OSError:
        return set()
    if len(roots) == 1 and (roots[0] / "cgroup.controllers").exists():
        return set((roots[0] / "cgroup.controllers").read_text().split())
    return {name for root in roots for name in root.name.split(",")}


if __name__ == "__main__":
    here = look()
    sentence = problem(here) or builder_problem(here)
    sys.stdout.write(f"{sentence}\n" if sentence else "")
    sys.exit(bool(sentence))
