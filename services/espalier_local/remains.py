"""What containers leave in the kernel besides processes: control groups, mounts, sockets. Found by name, removed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from espalier_kit.errors import Permanent
from espalier_local.cables import run
from espalier_local.containerd import CRI_NAMESPACE, SHIM_SOCKETS
from espalier_local.files import write_atomically

PROC_MOUNTS = Path("/proc/self/mounts")
CNI_RESULTS = Path("/var/lib/cni/results")
LOG_LINKS = Path("/var/log/containers")
KUBELET_SOCKET = Path("/var/lib/kubelet/device-plugins/kubelet.sock")
"""Where every kubelet waits for device plugins; the kubelet knows no setting for it, so the last one started has it."""
KERNEL_SETTINGS = Path("/run/espalier-kernel-settings.json")
"""What the settings were before the first kubelet of this machine; a restart undoes them and this file alike."""
_SYSCTL = Path("/proc/sys")
_KUBELET_SETS = (
    "vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)  # fmt: skip
_CONTAINER_ID = re.compile(r"\b[0-9a-f]{64}\b")
_PATIENCE_S = 10.0
_LOOK_S = 0.05


def cgroup_roots(mounts: str) -> list[Path]:
    """The control-group hierarchies that have resources, from the kernel's table: one, or one per controller."""
    found = [line.split() for line in mounts.splitlines()]
    each = [Path(words[1]) for words in found if words[2] == "cgroup"]
    return each or [Path(words[1]) for words in found if words[2] == "cgroup2"]


def all_cgroup_roots(mounts: str) -> list[Path]:
    """Also the one without resources that a hybrid machine has beside them: a runtime makes groups there, too."""
    return [Path(words[1]) for words in map(str.split, mounts.splitlines()) if words[2] in ("cgroup", "cgroup2")]


def mounts_under(mounts: str, root: Path) -> list[Path]:
    """Mount points below a directory, the innermost first; the kernel writes a space as \\040."""
    points = [Path(line.split()[1].replace("\\040", " ")) for line in mounts.splitlines()]
    return sorted((point for point in points if root in point.parents), key=lambda point: -len(point.parts))


def make_cgroup(name: str) -> None:
    """The group of that name in every hierarchy; a kubelet uses it but does not make it."""
    for root in cgroup_roots(PROC_MOUNTS.read_text()):
        (root / name).mkdir(exist_ok=True)


def remove_cgroups(prefix: str) -> None:
    """End what still runs in groups whose name begins so, and remove them; raises `Permanent` when one stays."""
    deadline = time.monotonic() + _PATIENCE_S
    roots = all_cgroup_roots(PROC_MOUNTS.read_text())
    while left := [group for root in roots for group in root.glob(f"{prefix}*")]:
        if time.monotonic() > deadline:
            raise Permanent(f"control group {left[0]} cannot be removed", reason="CleanupFailed")
        for group in left:
            _remove_tree(group)
        time.sleep(_LOOK_S)


def _remove_tree(group: Path) -> None:
    for directory in _deepest_first(group):
        with contextlib.suppress(OSError, ValueError):
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):  # busy until its last process is reaped: the caller comes again
            directory.rmdir()


def _deepest_first(group: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)


def unmount_all(root: Path) -> None:
    """Every mount below a directory, whatever holds it."""
    while points := mounts_under(PROC_MOUNTS.read_text(), root):
        run(("umount", "--lazy", str(points[0])))


def forget_containers(ids: Iterable[str], root: Path) -> None:
    """Remove what containerd, the network plugins and the kubelet keep of these containers in places of their own."""
    for container in ids:
        for result in CNI_RESULTS.glob(f"*-{container}-*"):
            result.unlink(missing_ok=True)
    for link in LOG_LINKS.glob("*") if LOG_LINKS.is_dir() else ():
        if link.is_symlink() and root in Path(os.readlink(link)).parents:
            link.unlink(missing_ok=True)


def remove_shim_sockets(addresses: Iterable[str]) -> None:
    """Sockets of shims that were killed; `addresses` as containerd noted them."""
    for address in addresses:
        path = Path(address.strip().removeprefix("unix://"))
        if path.parent == SHIM_SOCKETS:
            path.unlink(missing_ok=True)


def shim_addresses(containerd: Path, log: str) -> list[str]:
    """Where the shims of every container that a log of containerd names listened, also of those that containerd has
    forgotten; it names a shim's socket by the SHA-256 of its own socket's path, its namespace and the container's id.
    """
    ids = sorted(set(_CONTAINER_ID.findall(log)))
    digests = (hashlib.sha256(str(containerd / CRI_NAMESPACE / found).encode()).hexdigest() for found in ids)
    return [f"unix://{SHIM_SOCKETS / digest}" for digest in digests]


def remove_dead_socket(path: Path) -> bool:
    """Remove a socket on which nobody listens any more; says whether there was one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return True
        except OSError:
            return False
    return False


def keep_kernel_settings() -> None:
    """Note what a kubelet is about to change for the whole machine, unless it is noted."""
    if not KERNEL_SETTINGS.exists():
        now = {name: (_SYSCTL / name).read_text().strip() for name in _KUBELET_SETS if (_SYSCTL / name).exists()}
        write_atomically(KERNEL_SETTINGS, json.dumps(now))


def restore_kernel_settings() -> None:
    """Put them back; for the last cluster of the machine to call."""
    with contextlib.suppress(FileNotFoundError):
        for name, value in json.loads(KERNEL_SETTINGS.read_text()).items():
            with contextlib.suppress(OSError):
                (_SYSCTL / name).write_text(value)
        KERNEL_SETTINGS.unlink()
