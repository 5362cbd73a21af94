"""Network namespaces and cables: what to tell `ip`, as pure lists of words, and the one function that tells it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from espalier_kit.errors import Permanent
from espalier_local.addresses import SWITCH, Cables
from espalier_local.pki import SERVICE_RANGE

NAMESPACES = Path("/run/netns")
DEVICES = Path("/sys/class/net")
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where network and container tools are, whatever the user's PATH; Debian leaves the sbin directories out of it."""
Command = tuple[str, ...]


def inside(namespace: str, *command: str) -> Command:
    """Run it on that host's network. Unlike `ip netns exec`, nsenter leaves /sys alone, where the cgroups are."""
    return ("nsenter", f"--net={NAMESPACES / namespace}", *command)


def switch_commands(cables: Cables, linux: Iterable[int]) -> list[Command]:
    """The switch, and the ways to the pods of the Linux hosts. Every command but the first may be repeated."""
    return [
        # Without a spanning tree a port still waits its delay before it forwards, 15 s unless told otherwise.
        ("ip", "link", "add", cables.switch, "type", "bridge", "forward_delay", "0", "mcast_snooping", "0"),
        ("ip", "address", "replace", f"{cables.server}/{cables.prefix}", "dev", cables.switch),
        ("ip", "link", "set", cables.switch, "up"),
        *(("ip", "route", "replace", cables.pods(k), "via", cables.host(k), "dev", cables.switch) for k in linux),
    ]


def host_commands(cables: Cables, name: str, k: int, linux: Iterable[int]) -> list[Command]:
    """A host's namespace, its cable into the switch, its ways to the pods of other hosts. Only `add` is not
    repeatable. There is no default route: nothing on a host can reach anything but its cluster."""
    namespace, device = cables.namespace(name), "eth0"
    within = ("ip", "-n", namespace)
    return [
        ("ip", "netns", "add", namespace),
        (
            "ip", "link", "add", cables.plug(k), "type", "veth",
            "peer", "name", device, "netns", namespace,
        ),
        ("ip", "link", "set", cables.plug(k), "master", cables.switch, "up"),
        (*within, "link", "set", "lo", "up"),
        (*within, "address", "replace", f"{cables.host(k)}/{cables.prefix}", "dev", device),
        (*within, "link", "set", device, "up"),
        *((*within, "route", "replace", cables.pods(j), "via", cables.host(j)) for j in linux if j != k),
        # A host's own programs reach Services too; the address is rewritten on the way out, but needs a way first.
        (*within, "route", "replace", SERVICE_RANGE, "via", cables.server),
        inside(namespace, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
    ]  # fmt: skip


def cut_command(cables: Cables, k: int) -> Command:
    """Pull the plug."""
    return ("ip", "link", "set", cables.plug(k), "down")


def mend_command(cables: Cables, k: int) -> Command:
    """Put it back."""
    return ("ip", "link", "set", cables.plug(k), "up")


def removal_commands(cables: Cables, devices: Iterable[str], namespaces: Iterable[str]) -> list[Command]:
    """Take away what of this cluster is among `devices` and `namespaces`."""
    plugs = sorted(device for device in devices if device.startswith(f"{cables.switch}-"))
    ours = sorted(namespace for namespace in namespaces if namespace.startswith(f"{cables.switch}-"))
    return [
        # A plug goes at once, a namespace's own devices only when the kernel gets to it.
        *(("ip", "link", "delete", plug) for plug in plugs),
        *(("ip", "netns", "delete", namespace) for namespace in ours),
        *(("ip", "link", "delete", device) for device in devices if device == cables.switch),
    ]


def remaining(command: Sequence[str], devices: Iterable[str], namespaces: Iterable[str]) -> bool:
    """Whether the command still has something to do; `add` has not once the thing is there."""
    if "add" not in command:
        return True
    if command[1] == "netns":
        return command[3] not in namespaces
    return command[3] not in devices


def switches(devices: Iterable[str]) -> list[str]:
    """The switches of all clusters among the devices."""
    return [device for device in devices if device.removeprefix(SWITCH).isdecimal() and device.startswith(SWITCH)]


def lay(commands: Iterable[Command]) -> None:
    """Run those that have something to do; raises `Permanent` with the tool's words."""
    for command in commands:
        if remaining(command, devices_now(), namespaces_now()):
            run(command)


def devices_now() -> list[str]:
    """This machine's network devices."""
    return sorted(path.name for path in DEVICES.iterdir()) if DEVICES.is_dir() else []


def namespaces_now() -> list[str]:
    """This machine's named network namespaces."""
    return sorted(path.name for path in NAMESPACES.iterdir()) if NAMESPACES.is_dir() else []


def run(command: Command, *, timeout_s: float = 30) -> str:
    """What a tool printed; raises `Permanent` with its words."""
    environment = {**os.environ, "PATH": SEARCH_PATH}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=timeout_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Permanent(f"{' '.join(command)}: {error}", reason="HostFailed") from error
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())[-300:]
        raise Permanent(f"{' '.join(command)}: {words}", reason="HostFailed")
    return done.stdout
