"""What the agent asks of a machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Facts:
    """What the Node object says of the machine."""

    operating_system: str
    """`linux` or `darwin`: the label kubernetes.io/os."""
    architecture: str
    """As Go names it: amd64, arm64."""
    cpus: int
    memory_bytes: int
    disk_bytes: int
    machine_id: str
    boot_id: str
    kernel_version: str
    os_image: str
    labels: Mapping[str, str]
    """Hardware labels: `espalier.dev/chip`, `espalier.dev/memory-gb`."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What is short right now."""

    memory_free_bytes: int
    disk_free_bytes: int
    pids_free: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used: CPU seconds since the start, resident bytes now."""

    cpu_seconds: float
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class View:
    """What one container may see and be."""

    hostname: str
    user: int
    group: int
    groups: tuple[int, ...]
    mounts: tuple[tuple[Path, str, bool], ...]
    """(source, target, is read-only), in the order in which they are laid over each other."""
    readable: tuple[Path, ...]
    """Paths that appear at their own place, read-only."""


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A command line that builds a view and runs `launch` in it."""

    argv: tuple[str, ...]
    info_fd: int
    has_info: bool
    """Whether the wrapper writes its init's pid to `info_fd`."""


class Machine(Protocol):
    """Hardware facts, processes and isolation of one operating system."""

    def facts(self) -> Facts: ...

    def pressure(self) -> Pressure: ...

    def usage(self, pid: int | None) -> Usage:
        """Of a process and all below it that still live, or of the whole machine. What is gone used nothing."""
        ...

    def wrap(self, view: View, command: tuple[str, ...]) -> Wrapped:
        """The command line that runs `command` (without secrets: it can be read by others) inside the view."""
        ...

    def enter(self, pid: int, view: View, command: tuple[str, ...]) -> tuple[str, ...]:
        """The command line that runs `command` in the view of a running container whose init is `pid`."""
        ...

    def identity(self, pid: int) -> str | None:
        """What tells this process from a later one with its number; None if it is gone."""
        ...

    async def wait_for_exit(self, pid: int) -> None:
        """Until the process is gone, whoever its parent is."""
        ...

    def check(self) -> str | None:
        """A sentence on what is missing to run containers; None when nothing is."""
        ...
