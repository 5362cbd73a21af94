"""Containers as native processes, each under a shim; everything known of them lies in files, so a new agent finds it.

`<state>/pods/<uid>/containers/<name>/<attempt>/` holds `spec.json`, `payload.json`, `started.json`, `log`, `exit.json`
and `termination-log`. The newest attempt and the one before it are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import site
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from espalier_kit.errors import Retryable
from espalier_node import inside, launch, sandbox, shim
from espalier_node.machine.base import Machine, View
from espalier_node.runtime import ContainerConfig, ExecResult, Mount, Run
from espalier_node.streaming import commands
from espalier_node.streaming.channels import Command

log = logging.getLogger(__name__)

START_S = 20.0
"""A shim that has not started its container after this long never will: its directory has `shim.GIVEN_UP`."""
MESSAGE_BYTES = 4096
OUTPUT_BYTES = 10240
_UNKNOWN = 137
_LOCALHOST = (("127.0.0.1", "localhost"), ("::1", "localhost"))


class ProcessRuntime:
    """`espalier_node.runtime.Runtime` by shims on this machine."""

    def __init__(
        self, state_dir: Path, machine: Machine, *, readable: Iterable[Path], log_max_bytes: int, nice: int,
        start_s: float = START_S,
    ) -> None:
        self._pods = state_dir / "pods"
        self._machine = machine
        self._readable = sandbox.outermost([*interpreter_paths(), *readable])
        self._log_max_bytes, self._nice, self._start_s = log_max_bytes, nice, start_s

    async def start(self, config: ContainerConfig) -> Run:
        directory = self._container(config.pod_uid, config.name) / str(config.attempt)
        try:
            self._prepare(directory, config)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", shim.__file__, str(directory),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Retryable(f"container {config.name} cannot be started: {error}", reason="Failed") from error
        try:
            _, said = await asyncio.wait_for(process.communicate(), self._start_s)
        except TimeoutError as error:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            self._give_up(directory)
            sentence = f"container {config.name} did not start within {self._start_s:g} s"
            raise Retryable(sentence, reason="Failed") from error
        if not (directory / "started.json").exists():
            raise Retryable(f"container {config.name}: {said.decode(errors='replace')[-500:]}", reason="Failed")
        self._remember_identity(directory)
        self._drop_old(config)
        return self._read(directory)

    def runs(self, pod_uid: str, name: str) -> tuple[Run, ...]:
        return tuple(self._read(directory) for directory in self._attempts(pod_uid, name)[:2])

    async def wait(self, pod_uid: str, name: str) -> Run:
        directory = self._attempts(pod_uid, name)[0]
        await self._machine.wait_for_exit(_load(directory / "started.json").get("shim_pid", 0))
        return self._read(directory)

    def terminate(self, pod_uid: str, name: str) -> None:
        self._signal(pod_uid, name, signal.SIGTERM)

    def kill(self, pod_uid: str, name: str) -> None:
        self._signal(pod_uid, name, signal.SIGUSR2)

    async def execute(
        self, pod_uid: str, name: str, command: tuple[str, ...], *, timeout_s: float
    ) -> ExecResult:
        line, payload = self._way_in(pod_uid, name, command)
        return await _communicate(line(0), payload, timeout_s)

    async def interact(
        self, pod_uid: str, name: str, command: tuple[str, ...], *, has_stdin: bool, is_tty: bool
    ) -> Command:
        line, payload = self._way_in(pod_uid, name, command)
        return await commands.start(line, payload, has_stdin=has_stdin, is_tty=is_tty)

    def _way_in(
        self, pod_uid: str, name: str, command: tuple[str, ...]
    ) -> tuple[Callable[[int], tuple[str, ...]], bytes]:
        """The command line that enters the container, given the descriptor of its payload, and the payload."""
        attempts = self._attempts(pod_uid, name)
        if not attempts or not self._is_alive(attempts[0]):
            raise Retryable(f"container {name} is not running", reason="NotRunning")
        spec = _load(attempts[0] / "spec.json")
        payload = {**_load(attempts[0] / "payload.json"), "command": list(command)}
        view = View(
            hostname="", user=spec["user"], group=spec["group"], groups=tuple(spec["groups"]), mounts=(), readable=()
        )
        started = _load(attempts[0] / "started.json")
        pid = started["init_pid"] or started["pid"]
        return lambda n: self._machine.enter(pid, view, _launcher(n)), json.dumps(payload).encode()

    def log_path(self, pod_uid: str, name: str, *, previous: bool = False) -> Path | None:
        attempts = self._attempts(pod_uid, name)[1 if previous else 0:]
        return attempts[0] / "log" if attempts else None

    def pods(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self._pods.glob("*") if path.is_dir()))

    def containers(self, pod_uid: str) -> tuple[str, ...]:
        """Names of a pod's containers that ever ran."""
        return tuple(sorted(path.name for path in (self._pods / pod_uid / "containers").glob("*")))

    def forget(self, pod_uid: str) -> None:
        shutil.rmtree(self._pods / pod_uid, ignore_errors=True)

    def _container(self, pod_uid: str, name: str) -> Path:
        return self._pods / pod_uid / "containers" / name

    def _attempts(self, pod_uid: str, name: str) -> list[Path]:
        """Newest first; only those whose shim came to start, and in time."""
        found = self._container(pod_uid, name).glob("[0-9]*")
        directories = [p for p in found if (p / "started.json").exists() and not (p / shim.GIVEN_UP).exists()]
        return sorted(directories, key=lambda path: int(path.name), reverse=True)

    def _prepare(self, directory: Path, config: ContainerConfig) -> None:
        if directory.exists():
            self._give_up(directory)
            directory.rename(tempfile.mkdtemp(prefix=f"{shim.GIVEN_UP}-", dir=directory.parent))  # with its mark
        directory.mkdir(parents=True)
        self._make_way(config.mounts)
        message = directory / "termination-log"
        message.touch()
        _own(message, config.user, config.group)
        etc = write_etc(self._pods / config.pod_uid / "etc", config)
        held = self._held(directory, config.mounts)
        mounts = (
            *((path, f"/etc/{path.name}", True) for path in etc),
            *((held.get(mount, mount.source), mount.target, mount.is_read_only) for mount in config.mounts),
            (message, config.termination_message_path, False),
        )
        view = View(
            hostname=config.hostname[:63], user=config.user, group=config.group, groups=config.groups, mounts=mounts,
            readable=self._readable,
        )
        wrapped = self._machine.wrap(view, _launcher(launch.PAYLOAD_FD))
        _dump(directory / "payload.json", {
            "command": config.command, "environment": dict(config.environment),
            "working_directory": config.working_directory,
        })
        _dump(directory / "spec.json", {
            "argv": wrapped.argv, "env": commands.ENVIRONMENT, "info_fd": wrapped.info_fd, "has_info": wrapped.has_info,
            "payload_fd": launch.PAYLOAD_FD, "nice": self._nice, "held": _steps(held),
            "log_max_bytes": self._log_max_bytes, "streak": config.streak, "user": config.user, "group": config.group,
            "groups": config.groups,
        })

    def _make_way(self, mounts: Iterable[Mount]) -> None:
        """Places of readable paths in volumes above them: bubblewrap would make them too, but follow links there."""
        for mount in (mount for mount in mounts if not mount.is_read_only):
            for path in (path for path in self._readable if path.is_relative_to(mount.target)):
                place = path if path.is_dir() else path.parent
                with inside.directory(mount.source, place.relative_to(mount.target)):
                    pass

    def _held(self, directory: Path, mounts: Iterable[Mount]) -> dict[Mount, Path]:
        """Where the shim binds parts of volumes for bubblewrap, which would go there by name: only root can."""
        found = {}
        for number, mount in enumerate(mount for mount in mounts if mount.volume and os.geteuid() == 0):
            found[mount] = directory / f"held-{number}"
            if mount.source.is_dir():
                found[mount].mkdir()
            else:
                found[mount].touch()
        return found

    def _give_up(self, directory: Path) -> None:
        """A start that nobody watches over ends here, or as soon as its shim reads the mark beside it."""
        (directory / shim.GIVEN_UP).touch()
        self._signal_shim(directory, signal.SIGUSR2)

    def _read(self, directory: Path) -> Run:
        started, ended, spec = (_load(directory / f"{name}.json") for name in ("started", "exit", "spec"))
        uid, name = directory.parts[-4], directory.parts[-2]
        run = {
            "attempt": int(directory.name), "container_id": f"process://{uid}.{name}.{directory.name}",
            "started_at": _time(started["started_at"]), "streak": spec.get("streak", 0),
            "pid": started["init_pid"] or started["pid"],
        }
        if ended:
            code = ended["exit_code"]
            return Run(
                **run, finished_at=_time(ended["finished_at"]), exit_code=code, signal=ended["signal"],
                reason="Completed" if code == 0 else "Error", message=_message(directory),
            )
        if self._is_alive(directory):
            return Run(**run)
        return Run(
            **run, finished_at=datetime.fromtimestamp((directory / "started.json").stat().st_mtime, UTC),
            exit_code=_UNKNOWN, reason="ContainerStatusUnknown",
            message="The container's process and its shim were gone when the agent looked; how it ended is not known.",
        )

    def _remember_identity(self, directory: Path) -> None:
        """Unless the disk is full: a shim that could be taken for another is better than one that nobody knows."""
        identity = self._machine.identity(_load(directory / "started.json")["shim_pid"])
        with contextlib.suppress(OSError):
            _dump(directory / "identity.json", {"shim": identity})

    def _is_alive(self, directory: Path) -> bool:
        """Whether the shim still runs; its number may since belong to another process."""
        identity = self._machine.identity(_load(directory / "started.json").get("shim_pid", 0))
        known = _load(directory / "identity.json").get("shim")
        return identity is not None and known in (None, identity)

    def _signal(self, pod_uid: str, name: str, number: signal.Signals) -> None:
        for directory in self._attempts(pod_uid, name)[:1]:
            self._signal_shim(directory, number)

    def _signal_shim(self, directory: Path, number: signal.Signals) -> None:
        if self._is_alive(directory) and not (directory / "exit.json").exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(_load(directory / "started.json")["shim_pid"], number)

    def _drop_old(self, config: ContainerConfig) -> None:
        for directory in self._attempts(config.pod_uid, config.name)[2:]:
            shutil.rmtree(directory, ignore_errors=True)


def interpreter_paths() -> list[Path]:
    """What a container needs to run this installation: the interpreter, its environment, and where packages lie."""
    entries = [Path(entry) for entry in sys.path if entry and Path(entry).is_dir()]
    found = [Path(sys.prefix), Path(sys.base_prefix), *entries, *map(Path, site.getsitepackages())]
    return [path for path in found if path.exists() and not path.is_relative_to("/usr") and path != Path("/")]


def write_etc(directory: Path, config: ContainerConfig) -> list[Path]:
    """passwd, group and hosts of one pod."""
    directory.mkdir(parents=True, exist_ok=True)
    user, group = config.user, config.group
    files = {
        "passwd": f"root:x:0:0:root:/root:/bin/sh\nespalier:x:{user}:{group}:espalier:/tmp:/bin/sh\n",
        "group": f"root:x:0:\nespalier:x:{group}:\n",
        "hosts": "".join(f"{address}\t{names}\n" for address, names in (*_LOCALHOST, *config.hosts)),
    }
    for name, text in files.items():
        (directory / name).write_text(text)
    return [directory / name for name in files]


def _launcher(descriptor: int) -> tuple[str, ...]:
    return (os.path.realpath(sys.executable), "-I", "-S", launch.__file__, str(descriptor))


async def _communicate(line: tuple[str, ...], payload: bytes, timeout_s: float) -> ExecResult:
    process = await asyncio.create_subprocess_exec(
        *line, env=commands.ENVIRONMENT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(payload), timeout_s)
    except TimeoutError as error:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise Retryable(f"the command ran longer than {timeout_s:g} s", reason="Timeout") from error
    return ExecResult(process.returncode or 0, output[-OUTPUT_BYTES:].decode(errors="replace"))


def _message(directory: Path) -> str:
    with contextlib.suppress(OSError), (directory / "termination-log").open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MESSAGE_BYTES))
        return file.read(MESSAGE_BYTES).decode(errors="replace")
    return ""


def _load(path: Path) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return parsed


def _steps(held: Mapping[Mount, Path]) -> list[tuple[str, tuple[str, ...], str]]:
    """Volume, steps to its part, place: what `shim` binds."""
    return [
        (str(mount.volume), mount.source.relative_to(mount.volume).parts, str(place))
        for mount, place in held.items() if mount.volume
    ]


def _dump(path: Path, value: Any) -> None:
    path.touch(mode=0o600)
    path.write_text(json.dumps(value))


def _own(path: Path, user: int, group: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, user, group)


def _time(text: str) -> datetime:
    """RFC 3339 with nanoseconds → aware UTC (Python keeps microseconds)."""
    head, _, rest = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{rest[:6] or '0':0<6}+00:00")
