"""What the agent asks of whatever runs containers; `process` is the one there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from espalier_node.streaming.channels import Command
from espalier_node.targets import MESSAGE_PATH


@dataclass(frozen=True, slots=True)
class Mount:
    """A path of this machine at a path of the container."""

    source: Path
    target: str
    is_read_only: bool = False
    volume: Path | None = None
    """What the path lies in, where containers may lay links: a runtime that can takes each step to it itself."""


@dataclass(frozen=True, slots=True)
class ContainerConfig:
    """All that is needed to start one run of a container."""

    pod_uid: str
    hostname: str
    name: str
    attempt: int
    """0 for the first run; the pod's restart count."""
    streak: int
    """Restarts in a row before this run, each after a run too short to count as healthy."""
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    working_directory: str
    mounts: tuple[Mount, ...]
    user: int
    group: int
    groups: tuple[int, ...]
    """Further groups."""
    hosts: tuple[tuple[str, str], ...]
    """Address and names: lines of /etc/hosts."""
    termination_message_path: str = MESSAGE_PATH


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a container. `finished_at` is None while it lives; then `exit_code` is the shell's (128 + signal)."""

    attempt: int
    container_id: str
    started_at: datetime
    streak: int = 0
    pid: int = 0
    """The container's main process as this machine numbers it (its namespace's init, where it has one)."""
    finished_at: datetime | None = None
    exit_code: int = 0
    signal: int = 0
    reason: str = ""
    message: str = ""

    @property
    def is_running(self) -> bool:
        return self.finished_at is None

    @property
    def seconds(self) -> float:
        """How long it ran; 0 while it runs."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else 0.0


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command inside a container said."""

    exit_code: int
    output: str


class Runtime(Protocol):
    """Containers of pods, by pod uid and container name. Runs outlive the agent; `runs` finds them again."""

    async def start(self, config: ContainerConfig) -> Run:
        """Start a container. Raises `Retryable` when the machine could not."""
        ...

    def runs(self, pod_uid: str, name: str) -> tuple[Run, ...]:
        """The newest run and the one before it, newest first; empty if it never ran."""
        ...

    async def wait(self, pod_uid: str, name: str) -> Run:
        """Until the newest run has ended."""
        ...

    def terminate(self, pod_uid: str, name: str) -> None:
        """Ask the main process to end (SIGTERM)."""
        ...

    def kill(self, pod_uid: str, name: str) -> None:
        """End every process of the container."""
        ...

    async def execute(
        self, pod_uid: str, name: str, command: tuple[str, ...], *, timeout_s: float
    ) -> ExecResult:
        """Run a command inside with the container's environment. Raises `Retryable` on timeout or a dead container."""
        ...

    async def interact(
        self, pod_uid: str, name: str, command: tuple[str, ...], *, has_stdin: bool, is_tty: bool
    ) -> Command:
        """Start a command inside whose streams a person holds. Raises `Retryable` for a dead container."""
        ...

    def log_path(self, pod_uid: str, name: str, *, previous: bool = False) -> Path | None:
        """Its log file in CRI format (an older part lies beside it as `.1`)."""
        ...

    def pods(self) -> tuple[str, ...]:
        """Uids of all pods that something is kept of."""
        ...

    def containers(self, pod_uid: str) -> tuple[str, ...]:
        """Names of a pod's containers that ever ran."""
        ...

    def forget(self, pod_uid: str) -> None:
        """Remove what is kept of a pod whose containers have ended."""
        ...
