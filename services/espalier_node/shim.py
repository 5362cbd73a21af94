"""A tiny process per container that owns its child, log file and exit status, so that all three outlive the agent.

Run as `python -I -S shim.py DIRECTORY` by `espalier_node.process`; standard library only and few imports, since one
lives beside every container. Reads `spec.json`; writes `started.json`, `log` (CRI format) and, last, `exit.json`.

Signals to the shim: SIGTERM goes to the container's main process; SIGUSR2 kills the whole container.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any

LINE_BYTES = 16384
"""Longer lines are written in parts tagged P, as CRI runtimes do."""
DRAIN_S = 2.0
"""How long output is still read after the main process ended (a stray descendant may hold the pipe)."""
START_FAILED = 128
FIRST_CHILD_S = 0.5


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


class Log:
    """A log file in CRI format, rotated by size, one older file kept."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._rest = {"stdout": b"", "stderr": b""}
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        self._size = os.fstat(self._fd).st_size

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
            os.close(self._fd)
            os.rename(self._path, self._path + ".1")
            self._open()


class Container:
    """The child and its pipes."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.init_pid = 0
        self._info, info = os.pipe()
        self.stdout, out = os.pipe()
        self.stderr, err = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(spec, out=out, err=err, info=info)
        for descriptor in (info, out, err):
            os.close(descriptor)
        if spec["has_info"]:
            self.init_pid = _read_init_pid(self._info)
            _await_first_child(self.init_pid)
        os.close(self._info)

    def terminate(self, *_: object) -> None:
        """SIGTERM to the main process: inside a pid namespace that is the first child of its init."""
        _kill(_first_child(self.init_pid) or self.init_pid or self.pid, signal.SIGTERM)

    def kill(self, *_: object) -> None:
        """SIGKILL to everything: a namespace dies with its init, a plain child with its process group."""
        if self.init_pid:
            _kill(self.init_pid, signal.SIGKILL)
        else:
            _kill(-self.pid, signal.SIGKILL)


def _become(spec: dict[str, Any], *, out: int, err: int, info: int) -> None:
    """In the child: own session, own descriptors, exec. Never returns."""
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if spec["nice"]:
            os.nice(spec["nice"])
        payload = os.open(spec["payload"], os.O_RDONLY)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        keep = ((out, 1), (err, 2), (payload, spec["payload_fd"]), (info, spec["info_fd"]))
        # Out of the way first: a source may have the number of another's target.
        for source, target in [(_above(source), target) for source, target in keep]:
            os.dup2(source, target)
        os.closerange(max(target for _, target in keep) + 1, 64)
        os.execve(spec["argv"][0], spec["argv"], spec["env"])
    except OSError as error:
        os.write(2, f"cannot start {spec['argv'][0]}: {error.strerror}\n".encode())
    os._exit(START_FAILED)


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
    with open("spec.json") as file:
        spec = json.load(file)
    started = _detach()
    _null_own_streams()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    log = Log("log", spec["log_max_bytes"])
    started_at = timestamp()
    container = Container(spec)
    signal.signal(signal.SIGTERM, container.terminate)
    signal.signal(signal.SIGUSR2, container.kill)
    write_json("started.json", {
        "shim_pid": os.getpid(), "pid": container.pid, "init_pid": container.init_pid, "started_at": started_at,
    })
    os.close(started)
    status = _follow(container, log, reader)
    log.finish()
    write_json("exit.json", {**_exit_status(status), "finished_at": timestamp()})


if __name__ == "__main__":
    main(sys.argv[1])
