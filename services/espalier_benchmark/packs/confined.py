"""Runs one program that a model wrote, or one scorer that reads a model's answers; executed *inside* the sandbox.

It stands alone (the standard library), since nothing else of ours need be in the sandbox. The request is one JSON
object on standard input, its `nonce` known to nobody else: only a line that begins with it, on what was standard
output at start, is a result. Limits are the second line; the sandbox has no network and sized file systems already.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import select
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, TextIO

MEMORY_BYTES = 1024 * 1024 * 1024
FILE_BYTES = 64 * 1024 * 1024
FORBIDDEN = {
    "socket.__new__": "opened a socket",
    "os.fork": "started a process",
    "os.forkpty": "started a process",
    "os.posix_spawn": "started a process",
    "os.exec": "started a process",
    "os.system": "started a process",
    "subprocess.Popen": "started a process",
    "ctypes.dlopen": "loaded a library",
}
"""Audit events of Python that no answer needs; each ends the process at once, so that nothing can catch it."""
SCORE_SECONDS = 10.0
"""For one answer's scorer; they need milliseconds."""
_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 4, 36
_MESSAGE_CHARACTERS = 300
_LINE_BYTES = 4096
_DESCRIPTORS = 256
"""More than are open here."""


def main() -> None:
    """Read the request, do it, write the line."""
    request = json.load(sys.stdin)
    out = _private_output()
    _limit(seconds=int(request["seconds"]), processes=int(request["processes"]))

    def say(**result: Any) -> None:
        out.write(request["nonce"] + json.dumps(result) + "\n")
        out.flush()

    if request["do"] == "check":
        _forbid(say)
        _check(request, say)
    else:
        _score(request, say)
    os._exit(0)  # threads that an answer left behind are not waited for


def _check(request: dict[str, Any], say: Callable[..., None]) -> None:
    """Run the program with its tests; that it ended otherwise is nobody's success."""
    try:
        exec(compile(request["program"], "answer.py", "exec"), {"__name__": "answer"})
    except BaseException as error:  # the program's own end, whichever it chose
        say(ok=False, why=f"{type(error).__name__}: {error}"[:_MESSAGE_CHARACTERS])
    else:
        say(ok=True, why="")


def _score(request: dict[str, Any], say: Callable[..., None]) -> None:
    """Scorers of reasoning-gym: some evaluate the answer, so they are here too, each answer in a process of its own."""
    sys.path[:0] = request["path"]
    score = importlib.import_module(request["module"]).scorer(request["arguments"])
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    say(started=True)
    for number in range(request["count"]):
        say(**_apart(partial(score, number)))


def _apart(score: Callable[[], tuple[float, str]]) -> dict[str, Any]:
    """What `score` returns, asked in a child that can write no file and leaves no process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.closerange(3, writing)
            os.closerange(writing + 1, _DESCRIPTORS)
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
            found, why = score()
            os.write(writing, json.dumps({"score": found, "why": why[:_MESSAGE_CHARACTERS]}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = os.read(reading, _LINE_BYTES) if select.select([reading], [], [], SCORE_SECONDS)[0] else b""
    os.close(reading)
    _end_children()
    try:
        line = json.loads(said)
        return {"score": min(1.0, max(0.0, float(line["score"]))), "why": str(line["why"])}
    except (ValueError, KeyError, TypeError):
        return {"score": 0.0, "why": "its scorer did not come to an end"}


def _end_children() -> None:
    """Those of a child are this process's own once it has ended."""
    while True:
        for name in os.listdir("/proc"):
            if name.isdecimal() and _parent_of(name) == os.getpid():
                os.kill(int(name), signal.SIGKILL)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _parent_of(pid: str) -> int:
    """0 for a process that has gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _forbid(say: Callable[..., None]) -> None:
    def hook(event: str, _: tuple[Any, ...]) -> None:
        if event in FORBIDDEN:
            say(ok=False, why=f"it {FORBIDDEN[event]}, which no answer needs")
            os._exit(1)

    sys.addaudithook(hook)


def _private_output() -> TextIO:
    """The pipe to the worker, on a descriptor that children do not inherit; nobody of our uid may open it by /proc."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    private = os.dup(1)
    os.set_inheritable(private, False)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    return os.fdopen(private, "w", encoding="utf-8")


def _limit(*, seconds: int, processes: int) -> None:
    """Memory, processor time, processes and the size of a file, for this process and its children."""
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, processes),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


if __name__ == "__main__":
    main()
