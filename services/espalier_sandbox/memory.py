"""Whether the kernel ended a process of this container for want of memory: its own count, before and after."""

from __future__ import annotations

from pathlib import Path

_COUNTS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
"""Control groups of version 2 and of version 1."""


def kills() -> int:
    """Processes ended so far; 0 where nobody counts."""
    for path in _COUNTS:
        try:
            return count(path.read_text())
        except OSError:
            continue
    return 0


def count(text: str) -> int:
    """The line `oom_kill N`. Pure."""
    words = dict(line.split(maxsplit=1) for line in text.splitlines() if " " in line)
    return int(words.get("oom_kill", "0"))
