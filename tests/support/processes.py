"""Finding and killing the programs of one local cluster, by what they are and whose they are."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def find(word: str, *texts: str) -> list[int]:
    """Pids that run `espalier-<word>` (or `python -m espalier_<word>`) and have every text in their environment."""
    names = (f"espalier-{word}".encode(), f"espalier_{word}".encode())
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        is_python = b"python" in Path(os.fsdecode(arguments[0])).name.encode()
        runs = is_python and any(argument.endswith(names) for argument in arguments[1:4])
        if runs and all(text.encode() in environment for text in texts):
            found.append(int(folder.name))
    return found


def kill(word: str, *texts: str) -> list[int]:
    """kill -9 all of them; fails when there is none, since then the test would prove nothing."""
    pids = find(word, *texts)
    assert pids, f"no espalier-{word} with {texts} runs"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids
