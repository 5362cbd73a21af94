"""Landlock: from here on nothing is written but where we say, whatever a file's mode allows.

A container has writable files that nobody asked for; what is written to /dev/termination-log would lie on the node's
disk and show in the pod's status. Needs no privilege. Kernels without it are many: what it gives comes on top.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from espalier_kit.errors import Permanent

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_VERSION = 1
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38
_WRITE_FILE = 1 << 1
_TRUNCATE = 1 << 14
_CHANGES = sum(1 << bit for bit in (1, *range(4, 13)))
"""Writing, removing, making of every kind; a later version adds renaming across folders, another truncating."""
_ABSTRACT_SOCKETS = 1


def version() -> int:
    """Of the kernel's Landlock; 0 where there is none, or the container's filter hides it."""
    found: int = _libc().syscall(_CREATE, None, 0, _VERSION)
    return max(0, found)


def restrict(folders: Iterable[Path], files: Iterable[Path]) -> int:
    """Allow changes in these folders and writing to these files, to this process and all that it starts, for good.

    Returns the version used; 0: there is none, and nothing has changed. Raises `Permanent` where it fails half-way.
    """
    found = version()
    if found == 0:
        return 0
    changes = _CHANGES | (1 << 13 if found >= 2 else 0) | (_TRUNCATE if found >= 3 else 0)
    libc = _libc()
    attributes = struct.pack("QQQ", changes, 0, _ABSTRACT_SOCKETS if found >= 6 else 0)
    attributes = attributes[: 8 if found < 4 else 16 if found < 6 else 24]
    rules = libc.syscall(_CREATE, attributes, len(attributes), 0)
    _check(rules)
    try:
        for path in folders:
            _allow(rules, path, changes)
        for path in files:
            _allow(rules, path, (_WRITE_FILE | _TRUNCATE) & changes)
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        _check(libc.syscall(_RESTRICT, rules, 0))
    finally:
        os.close(rules)
    return found


def _allow(rules: int, path: Path, access: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        at = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", access, at)
            _check(_libc().syscall(_ADD_RULE, rules, _PATH_BENEATH, rule, 0))
        finally:
            os.close(at)


def _check(returned: int) -> None:
    if returned < 0:
        said = os.strerror(ctypes.get_errno())
        raise Permanent(f"the kernel refuses the Landlock rules: {said}", reason="NoLandlock")


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
