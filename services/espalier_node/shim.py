"""A tiny process per container that owns its child, log file and exit status, so that all three outlive the agent.

Run as `python -I -S shim.py DIRECTORY` by `espalier_node.process`; standard library only and few imports, since one
lives beside every container. Reads `spec.json`; writes `started.json`, `log` (CRI format) and, last, `exit.json`.
The container's own command comes after `started.json`, and not at all where `given-up` is there by then: of an agent
that waits no more and a shim that is late, at least one sees what the other wrote.

Signals to the shim: SIGTERM goes to the container's main process; SIGUSR2 kills the whole container.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import stat
import sys
import time
from typing import Any

LINE_BYTES = 16384
"""Longer lines are written in parts tagged P, as CRI runtimes do."""
DRAIN_S = 2.0
"""How long output is still read after the main process ended (a stray descendant may hold the pipe)."""
START_FAILED = 128
GIVEN_UP = "given-up"
"""The agent's mark: this start took too long, and nobody would watch over it."""
END_BYTES = 256
"""Room for `exit.json`."""
AGAIN_S = 1.0
"""How soon a write that failed is tried again."""
FIRST_CHILD_S = 0.5
_NEW_MOUNTS, _BIND, _REC, _SLAVE = 0x20000, 0x1000, 0x4000, 0x80000
"""CLONE_NEWNS and the MS_ flags of mount(2)."""


def timestamp() -> str:
    """RFC 3339 with nanoseconds, UTC."""
    nanoseconds = time.time_ns()
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest:09d}Z"


def write_json(path: str, value: Any) -> None:
    """Atomically: a reader sees nothing or everything."""
    with open(path + ".tmp", "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".tmp", path)


class Ending:
    """`exit.json`, whose room is taken while there is some: an end that a full disk swallows looks like a failure."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(self._file, b" " * END_BYTES)
        os.fsync(self._file)

    def tell(self, value: Any) -> None:
        """Atomically, and until it is written: a file system may want new room where others write in place."""
        while os.path.exists(self._path + ".tmp"):  # else its directory is gone, and with it who would read this
            try:
                os.pwrite(self._file, json.dumps(value).encode().ljust(END_BYTES), 0)
                os.fsync(self._file)
                os.rename(self._path + ".tmp", self._path)
            except OSError:
                time.sleep(AGAIN_S)


class Log:
    """A log file in CRI format, rotated by size, one older file kept."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._rest = {"stdout": b"", "stderr": b""}
        self._fd, self._size = self._open(path), 0

    def _open(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)

    def feed(self, stream: str, data: bytes) -> None:
        """Add output; whole lines are written at once, and long ones in parts."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        for line in lines:
            self._write_line(stream, line)
        while len(rest) >= LINE_BYTES:
            self._write(stream, b"P", rest[:LINE_BYTES])
            rest = rest[LINE_BYTES:]
        self._rest[stream] = rest

    def finish(self) -> None:
        """Write what has no line end yet."""
        for stream, rest in self._rest.items():
            if rest:
                self._write(stream, b"F", rest)
        os.close(self._fd)

    def _write_line(self, stream: str, line: bytes) -> None:
        while len(line) > LINE_BYTES:
            self._write(stream, b"P", line[:LINE_BYTES])
            line = line[LINE_BYTES:]
        self._write(stream, b"F", line)

    def _write(self, stream: str, tag: bytes, line: bytes) -> None:
        record = f"{timestamp()} {stream} ".encode() + tag + b" " + line + b"\n"
        try:
            os.write(self._fd, record)
        except OSError:
            return  # a full disk must not stop the container; the line is lost
        self._size += len(record)
        if self._size >= self._max_bytes:
            self._rotate()

    def _rotate(self) -> None:
        self._size = 0
        try:
            fresh = self._open(self._path + ".next")
            os.rename(self._path, self._path + ".1")
            os.rename(self._path + ".next", self._path)
        except OSError:
            return  # it goes on in the file it has
        os.close(self._fd)
        self._fd = fresh


class Container:
    """The child and its pipes. Its launcher waits for the payload, which says what to run."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.init_pid = 0
        self._info, info = os.pipe()
        payload, self._payload = os.pipe()
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(spec, out=out, err=err, info=info, payload=payload)
        for descriptor in (info, out, err, payload):
            os.close(descriptor)
        if spec["has_info"]:
            self.init_pid = _read_init_pid(self._info)
            _await_first_child(self.init_pid)
        os.close(self._info)

    def release(self, payload: bytes) -> None:
        """Let the launcher go on; it may be gone already, as what runs in its place says."""
        try:
            with os.fdopen(self._payload, "wb") as pipe:
                pipe.write(payload)
        except BrokenPipeError:
            return

    def terminate(self, *_: object) -> None:
        """SIGTERM to the main process: inside a pid namespace that is the first child of its init."""
        _kill(_first_child(self.init_pid) or self.init_pid or self.pid, signal.SIGTERM)

    def kill(self, *_: object) -> None:
        """SIGKILL to everything: a namespace dies with its init, a plain child with its process group."""
        if self.init_pid:
            _kill(self.init_pid, signal.SIGKILL)
        else:
            _kill(-self.pid, signal.SIGKILL)


def _become(spec: dict[str, Any], *, out: int, err: int, info: int, payload: int) -> None:
    """In the child: own session, own descriptors, exec. Never returns."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if spec["nice"]:
            os.nice(spec["nice"])
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        keep = ((out, 1), (err, 2), (payload, spec["payload_fd"]), (info, spec["info_fd"]))
        # Out of the way first: a source may have the number of another's target.
        for source, target in [(_above(source), target) for source, target in keep]:
            os.dup2(source, target)
        os.closerange(max(target for _, target in keep) + 1, 64)
        if spec["held"]:
            _hold(spec["held"])
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(2, f"cannot start {error.filename or spec['argv'][0]}: {error.strerror}\n".encode())
    os._exit(START_FAILED)


def _hold(parts: list[tuple[str, list[str], str]]) -> None:
    """Bind parts of volumes to places that no container can touch, in a mount namespace that goes with this one.

    From descriptor to descriptor, no link followed: containers that run meanwhile may change what lies in a volume.
    """
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str | None, place: str, flags: int) -> None:
        if libc.mount(source and source.encode(), place.encode(), None, ctypes.c_ulong(flags), None) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), place)

    if libc.unshare(_NEW_MOUNTS) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    mount(None, "/", _REC | _SLAVE)
    for volume, steps, place in parts:
        found = os.open(volume, os.O_PATH)
        for step in steps:
            found = os.open(step, os.O_PATH | os.O_NOFOLLOW, dir_fd=found)
        if stat.S_ISLNK(os.fstat(found).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place)
        mount(f"/proc/self/fd/{found}", place, _BIND | _REC)


def _above(descriptor: int) -> int:
    import fcntl

    return fcntl.fcntl(descriptor, fcntl.F_DUPFD, 32)


def _read_init_pid(descriptor: int) -> int:
    """bubblewrap's `--info-fd` tells the pid of its namespace's init; 0 if it failed before that."""
    text = b""
    while part := os.read(descriptor, 4096):
        text += part
    try:
        return int(json.loads(text)["child-pid"])
    except (ValueError, KeyError):
        return 0


def _first_child(pid: int) -> int:
    if not pid:
        return 0
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return int((file.read().split() or ["0"])[0])
    except OSError:
        return 0


def _await_first_child(pid: int) -> None:
    """A SIGTERM that came before the main process exists would be lost; it exists within a millisecond or never."""
    deadline = time.monotonic() + FIRST_CHILD_S
    while pid and os.path.exists(f"/proc/{pid}") and not _first_child(pid) and time.monotonic() < deadline:
        time.sleep(0.001)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _exit_status(status: int) -> dict[str, int]:
    if os.WIFSIGNALED(status):
        return {"exit_code": 128 + os.WTERMSIG(status), "signal": os.WTERMSIG(status)}
    code = os.WEXITSTATUS(status)
    return {"exit_code": code, "signal": code - 128 if 128 < code < 160 else 0}


def _follow(container: Container, log: Log, child_ended: int) -> int:
    """Copy output until the child has ended and its pipes are empty; returns the wait status."""
    streams = {container.stdout: "stdout", container.stderr: "stderr"}
    status: int | None = None
    deadline = 0.0
    while streams or status is None:
        if status is not None and time.monotonic() > deadline:
            break
        timeout = None if status is None else max(0.0, deadline - time.monotonic())
        for ready in select.select([*streams, child_ended], [], [], timeout)[0]:
            if ready == child_ended:
                os.read(child_ended, 512)
                continue
            data = os.read(ready, 65536)
            if data:
                log.feed(streams[ready], data)
            else:
                del streams[ready]
                os.close(ready)
        if status is None:
            pid, ended = os.waitpid(container.pid, os.WNOHANG)
            if pid:
                status, deadline = ended, time.monotonic() + DRAIN_S
    assert status is not None
    return status


def _detach() -> int:
    """Fork away from the agent; the first process ends once the container has started, and returns never."""
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    os.setsid()
    return writer


def _null_own_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def main(directory: str) -> None:
    """Run the container described in `directory` until it ends."""
    os.chdir(directory)
    with open("spec.json") as file, open("payload.json", "rb") as other:
        spec, payload = json.load(file), other.read()
    started = _detach()
    ending, log = Ending("exit.json"), Log("log", spec["log_max_bytes"])
    _null_own_streams()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    container = _start(spec, payload)
    if container is None:
        return
    os.close(started)
    status = _follow(container, log, reader)
    log.finish()
    ending.tell({**_exit_status(status), "finished_at": timestamp()})


def _start(spec: dict[str, Any], payload: bytes) -> Container | None:
    """The running container; None where the agent has given it up."""
    if os.path.exists(GIVEN_UP):
        return None
    started_at = timestamp()
    container = Container(spec)
    signal.signal(signal.SIGTERM, container.terminate)
    signal.signal(signal.SIGUSR2, container.kill)
    write_json("started.json", {
        "shim_pid": os.getpid(), "pid": container.pid, "init_pid": container.init_pid, "started_at": started_at,
    })
    if os.path.exists(GIVEN_UP):
        container.kill()
        return None
    container.release(payload)
    return container


if __name__ == "__main__":
    main(sys.argv[1])
