"""Steps inside a volume that containers write to, from descriptor to descriptor: no link that a container laid is
followed, so nothing is ever made or given away outside."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePath

_STEP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def directory(root: Path, below: PurePath) -> Iterator[int]:
    """`root/below`, made with its parents where they do not exist; yields a descriptor of it.

    Raises `OSError` where a step is a link or no directory.
    """
    held = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in below.parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=held)
            held, above = os.open(part, _STEP, dir_fd=held), held
            os.close(above)
        yield held
    finally:
        os.close(held)


def deepest_first(root: Path) -> Iterator[tuple[str, int | None]]:
    """Everything in a tree, links as such, and last of all its root: names, each with its directory's descriptor."""
    for _, directories, names, held in os.fwalk(root, topdown=False):
        for name in (*names, *directories):
            yield name, held
    yield os.path.realpath(root), None
