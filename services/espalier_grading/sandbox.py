"""The port to what confines student code, and its implementations on one machine: bubblewrap, and none.

A third lives in `sandbox_pod`.

Bubblewrap: an allow-list of paths, all read-only, private sized temporary file systems, no network, own processes, no
environment, no privileges, and a seccomp filter that leaves no socket but AF_UNIX. Run by root it drops to an
unprivileged uid inside; run by any other uid it needs user namespaces, and works inside another bubblewrap as long as
that one shows a whole /proc.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from espalier_kit.execution import PlatformFault
from espalier_sandbox import seccomp

SCRATCH_BYTES = 256 * 1024 * 1024
"""Size of each private temporary file system; they live in memory."""
NOBODY = 65534
UIDS = range(61184, 65520)
"""Systemd's range for passing users, in which nobody else is. Run by root, each run has one of its own: the kernel
counts processes by user, and one submission's must not use up another's."""
_uids = itertools.cycle(random.sample(UIDS, len(UIDS)))
PROCESSES = 1024
_STDERR_BYTES = 4096
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/alternatives",
    "/etc/fonts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/R",
)
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "MPLBACKEND": "agg",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Finished:
    """How a confined process ended. `stdout` is cut at the bound that was asked for; `is_out_of_memory` only a sandbox
    with a memory of its own can tell. `is_lost`: the sandbox itself ended with it, by its doing or from outside.
    """

    code: int
    stdout: bytes
    stderr: str
    is_timeout: bool
    is_out_of_memory: bool = False
    is_lost: bool = False


class Sandbox(Protocol):
    """Confines one process. `scratch` is an existing folder of the host's: its `data` is readable inside, the rest
    fresh and writable.
    """

    @property
    def processes(self) -> int:
        """RLIMIT_NPROC of what runs in it."""
        ...

    async def run(
        self, command: Sequence[str], *, stdin: bytes, scratch: Path, readable: Path, seconds: float, output_bytes: int
    ) -> Finished:
        """Run to the end or the deadline; raises `PlatformFault` if it cannot be started."""
        ...


class Bubblewrap:
    """bubblewrap(1)."""

    def __init__(self, *, is_root: bool | None = None, processes: int = PROCESSES) -> None:
        self.processes = processes
        self._is_root = os.geteuid() == 0 if is_root is None else is_root

    async def run(
        self, command: Sequence[str], *, stdin: bytes, scratch: Path, readable: Path, seconds: float, output_bytes: int
    ) -> Finished:
        if shutil.which("bwrap") is None:
            raise PlatformFault(
                "bubblewrap is not installed where this worker runs: install the package bubblewrap",
                reason="SandboxUnavailable",
            )
        with _filter_file() as filter_:
            confined = bwrap_command(
                scratch=scratch, readable=readable, is_root=self._is_root, filter_=filter_, uid=next(_uids)
            )
            return await _run(
                [*confined, *command],
                stdin=stdin,
                environment={"PATH": os.environ.get("PATH", os.defpath)},
                seconds=seconds,
                output_bytes=output_bytes,
                descriptors=(filter_,),
            )


class Unconfined:
    """No sandbox: only for bundles and submissions of one's own."""

    processes = PROCESSES

    async def run(
        self, command: Sequence[str], *, stdin: bytes, scratch: Path, readable: Path, seconds: float, output_bytes: int
    ) -> Finished:
        return await _run(
            command, stdin=stdin, environment=environment(scratch), seconds=seconds, output_bytes=output_bytes
        )


@contextlib.contextmanager
def _filter_file() -> Iterator[int]:
    """The seccomp filter as a file that bubblewrap reads from its start."""
    descriptor = os.memfd_create("seccomp")
    try:
        os.write(descriptor, seccomp.program(seccomp.machine_now()))
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def environment(scratch: Path) -> dict[str, str]:
    """All that a confined process sees of the environment."""
    path = os.pathsep.join([str(Path(sys.prefix) / "bin"), "/usr/local/bin", "/usr/bin", "/bin"])
    homes = dict.fromkeys(
        ("HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"), f"{scratch}/home"
    )
    return {"PATH": path, "TMPDIR": f"{scratch}", **homes, **_ENVIRONMENT}


def bwrap_command(*, scratch: Path, readable: Path, is_root: bool, filter_: int, uid: int = NOBODY) -> list[str]:
    """The command line up to the confined program; `filter_` is the descriptor of the seccomp filter, `uid` whose
    root runs it as.
    """
    arguments = [
        "bwrap",
        "--die-with-parent",
        "--new-session",
        "--unshare-ipc",
        "--unshare-pid",
        "--unshare-net",
        "--unshare-uts",
    ]
    arguments += ["--unshare-cgroup-try", "--hostname", "student", "--clearenv", "--seccomp", str(filter_)]
    if not is_root:
        arguments += ["--unshare-user"]
    for name, value in environment(scratch).items():
        arguments += ["--setenv", name, value]
    for name in _SYSTEM:
        arguments += _system(Path(name))
    arguments += ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", "/tmp"]
    for path in _interpreter():
        arguments += _bind(path)
    arguments += _bind(readable)
    arguments += [*_parents(scratch), "--perms", "1777", "--size", str(SCRATCH_BYTES), "--tmpfs", str(scratch)]
    arguments += ["--ro-bind", f"{scratch}/data", f"{scratch}/data", "--remount-ro", "/", "--chdir", str(scratch), "--"]
    if is_root:
        arguments += [
            "setpriv",
            f"--reuid={uid}",
            f"--regid={uid}",
            "--clear-groups",
            "--no-new-privs",
            "--inh-caps=-all",
            "--bounding-set=-all",
        ]
    return arguments


def _interpreter() -> list[Path]:
    """Where Python and its packages are; the shortest set of folders."""
    wanted = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    return sorted(
        path
        for path in wanted
        if not path.is_relative_to("/usr") and not any(path != o and path.is_relative_to(o) for o in wanted)
    )


def _system(path: Path) -> list[str]:
    if path.is_symlink():
        return ["--symlink", os.readlink(path), str(path)]
    return ["--ro-bind", str(path), str(path)] if path.exists() else []


def _bind(path: Path) -> list[str]:
    return [*_parents(path), "--ro-bind", str(path), str(path)]


def _parents(path: Path) -> list[str]:
    """Parents that any uid may enter; bubblewrap's own would be for the owner only."""
    folders = [parent for parent in reversed(path.parents) if parent != Path("/") and parent != Path("/tmp")]
    return [
        argument
        for folder in folders
        if not folder.is_relative_to("/usr")
        for argument in ("--perms", "0755", "--dir", str(folder))
    ]


async def _run(
    command: Sequence[str],
    *,
    stdin: bytes,
    environment: dict[str, str],
    seconds: float,
    output_bytes: int,
    descriptors: tuple[int, ...] = (),
) -> Finished:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            start_new_session=True,
            pass_fds=descriptors,
        )
    except OSError as error:
        raise PlatformFault(f"the sandbox could not be started: {error}", reason="SandboxFailed") from error
    stdout, stderr, is_timeout = bytearray(), bytearray(), False
    try:
        async with asyncio.timeout(seconds):
            await _communicate(process, stdin, stdout=(stdout, output_bytes), stderr=(stderr, _STDERR_BYTES))
            await process.wait()
    except TimeoutError:
        is_timeout = True
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    return Finished(process.returncode or 0, bytes(stdout), stderr.decode(errors="replace"), is_timeout)


async def _communicate(
    process: asyncio.subprocess.Process, stdin: bytes, *, stdout: tuple[bytearray, int], stderr: tuple[bytearray, int]
) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    async with asyncio.TaskGroup() as group:
        group.create_task(_keep(process.stdout, *stdout))
        group.create_task(_keep(process.stderr, *stderr))
        with contextlib.suppress(ConnectionError):
            process.stdin.write(stdin)
            await process.stdin.drain()
            process.stdin.close()
            await process.stdin.wait_closed()


async def _keep(stream: asyncio.StreamReader, kept: bytearray, limit: int) -> None:
    """Read to the end; keep the first `limit` bytes."""
    while chunk := await stream.read(64 * 1024):
        kept += chunk[: max(0, limit - len(kept))]
