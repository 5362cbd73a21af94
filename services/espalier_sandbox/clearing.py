"""What a command may have left behind on file systems: all of it goes, so that the next one finds nothing.

Whatever wrote there wished us no good: folders nested deeper than a recursion or a path may be long, modes that forbid
everything. So one folder is entered at a time, by its name alone. No process but this one may be running meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

FOLDERS = (Path("/tmp"), Path("/dev/shm"))
"""Where commands may write: both lie in memory, and their container's limit counts them."""
CORNERS = (Path("/dev/mqueue"),)
"""Where they could write besides, were there no Landlock."""
TERMINATION_LOG = Path("/dev/termination-log")


def clear() -> None:
    """Empty every place that a command can write to."""
    for folder in (*FOLDERS, *CORNERS):
        empty(folder)
    with contextlib.suppress(OSError):
        os.truncate(TERMINATION_LOG, 0)


def empty(folder: Path) -> None:
    """Everything in it goes; what lies on another file system, or is not ours, stays. Leaves this process at `/`."""
    try:
        os.chdir(folder)
        device = os.stat(".").st_dev
    except OSError:
        return
    left, entered = [_remove_files()], list[str]()
    while left:
        if left[-1]:
            name = left[-1].pop()
            if _enter(name, device):
                entered.append(name)
                left.append(_remove_files())
        else:
            left.pop()
            if entered:
                os.chdir("..")
                with contextlib.suppress(OSError):
                    os.rmdir(entered.pop())
    os.chdir("/")


def _enter(name: str, device: int) -> bool:
    try:
        if os.lstat(name).st_dev != device:
            return False
        os.chmod(name, stat.S_IRWXU)
        os.chdir(name)
    except OSError:
        return False
    return True


def _remove_files() -> list[str]:
    """What is no folder goes; returns the names of folders. Once more as long as something went: a list that is read
    while its files go may pass some over.
    """
    while True:
        folders, has_removed = list[str](), False
        with os.scandir(".") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                    continue
                with contextlib.suppress(OSError):
                    os.unlink(entry.name)
                    has_removed = True
        if not has_removed:
            return folders
