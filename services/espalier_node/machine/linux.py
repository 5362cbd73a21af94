"""A Linux machine: /proc, pidfds, bubblewrap."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from pathlib import Path

from espalier_node import sandbox
from espalier_node.machine.base import Facts, Pressure, Usage, View, Wrapped

_TICKS, _PAGE = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class LinuxMachine:
    """This Linux machine as it is. `state_dir` is where its disk figures are taken."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._is_root = os.geteuid() == 0

    def facts(self) -> Facts:
        memory = _meminfo()["MemTotal"]
        return Facts(
            operating_system="linux",
            architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
            cpus=len(os.sched_getaffinity(0)),
            memory_bytes=memory,
            disk_bytes=shutil.disk_usage(self._state_dir).total,
            machine_id=_read("/etc/machine-id"),
            boot_id=_read("/proc/sys/kernel/random/boot_id"),
            kernel_version=platform.release(),
            os_image=_os_image(),
            labels={},
        )

    def pressure(self) -> Pressure:
        in_use = int(_read("/proc/loadavg").split()[3].split("/")[1])
        return Pressure(
            memory_free_bytes=_meminfo()["MemAvailable"],
            disk_free_bytes=shutil.disk_usage(self._state_dir).free,
            pids_free=int(_read("/proc/sys/kernel/pid_max")) - in_use,
        )

    def usage(self, pid: int | None) -> Usage:
        if pid is None:
            memory = _meminfo()
            busy = sum(map(int, _read("/proc/stat").split()[1:4]))
            return Usage(busy / _TICKS, memory["MemTotal"] - memory["MemAvailable"])
        used = [_own_usage(member) for member in _family(pid)]
        return Usage(sum(u.cpu_seconds for u in used), sum(u.memory_bytes for u in used))

    def wrap(self, view: View, command: tuple[str, ...]) -> Wrapped:
        argv = sandbox.command_line(
            view, command, bubblewrap=_found("bwrap"), is_root=self._is_root, links=_system_links(),
            etc=[name for name in sandbox.ESSENTIAL_ETC if os.path.exists(f"/etc/{name}")],
        )
        return Wrapped(argv, sandbox.INFO_FD, has_info=True)

    def enter(self, pid: int, view: View, command: tuple[str, ...]) -> tuple[str, ...]:
        return sandbox.enter_line(pid, view, command, nsenter=_found("nsenter"), is_root=self._is_root)

    def identity(self, pid: int) -> str | None:
        """The process's start time in clock ticks since boot, with the boot's id."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else f"{_read('/proc/sys/kernel/random/boot_id')}/{fields[19]}"

    async def wait_for_exit(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def check(self) -> str | None:
        wanted = ("bwrap", "nsenter", *(("setpriv", "chroot") if self._is_root else ()))
        missing = [name for name in wanted if not _which(name)]
        if missing:
            return f"{' and '.join(missing)} not found: install the packages bubblewrap, util-linux and coreutils"
        return None


def _family(pid: int) -> list[int]:
    """A process and its descendants; a thread's children stand under that thread."""
    found, left = [], [pid]
    while left:
        member = left.pop()
        found.append(member)
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            left += map(int, _read(str(children)).split())
    return found


def _own_usage(pid: int) -> Usage:
    """CPU time includes that of children which it has waited for."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    pages = _read(f"/proc/{pid}/statm").split()
    if len(fields) < 15 or len(pages) < 2:
        return Usage(0.0, 0)
    return Usage(sum(map(int, fields[11:15])) / _TICKS, int(pages[1]) * _PAGE)


def _which(name: str) -> str | None:
    return shutil.which(name, path="/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")


def _found(name: str) -> str:
    return _which(name) or name


def _system_links() -> dict[str, str]:
    return {path: os.readlink(path) for path in ("/bin", "/sbin", "/lib", "/lib32", "/lib64") if os.path.islink(path)}


def _meminfo() -> dict[str, int]:
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines}


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"
