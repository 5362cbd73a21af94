"""Folders as archives that are equal, byte for byte, whenever their contents are."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

from espalier_kit.errors import Permanent

CHUNK_BYTES = 256 * 1024
MAX_BYTES = 2 * 1024**3
"""The coordinator's own limit."""


@contextmanager
def packed(path: Path) -> Iterator[Path]:
    """The file itself, or a folder as a temporary .tar.gz. Raises `Permanent` on anything that cannot be pushed."""
    if path.is_file():
        yield _checked(path)
        return
    if not path.is_dir():
        raise Permanent(f"{path} does not exist" if not path.exists() else f"{path} is neither a file nor a folder")
    with tempfile.TemporaryDirectory(prefix="espalier-push-") as folder:
        archive = Path(folder) / "content.tar.gz"
        pack(path, archive)
        yield _checked(archive)


def pack(folder: Path, target: Path) -> None:
    """Write `folder`'s contents to `target`: sorted names, no times, no owners."""
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        entries = sorted(folder.rglob("*"), key=lambda entry: entry.relative_to(folder).as_posix())
        if not entries:
            raise Permanent(f"{folder} is empty")
        for entry in entries:
            _add(archive, entry, entry.relative_to(folder).as_posix())


def digest_of(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


async def chunks(path: Path) -> AsyncIterator[bytes]:
    """A file in pieces."""
    with path.open("rb") as source:
        while piece := source.read(CHUNK_BYTES):
            yield piece


def _add(archive: tarfile.TarFile, entry: Path, name: str) -> None:
    if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
        raise Permanent(f"{entry} is neither a plain file nor a folder: replace it by what it stands for")
    info = tarfile.TarInfo(name)
    if entry.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(info)
        return
    info.size, info.mode = entry.stat().st_size, 0o644
    with entry.open("rb") as source:
        archive.addfile(info, source)


def _checked(path: Path) -> Path:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise Permanent(f"{path.name} has {size / 1024**3:.1f} GiB; an artifact may have 2: split it")
    return path
