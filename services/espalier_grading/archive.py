"""Tar archives from strangers: read in memory, nothing followed, nothing unbounded."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from espalier_kit.errors import Permanent

MAX_FILES = 2_000
"""Files of one bundle or one submission."""
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_TOTAL_BYTES = 256 * 1024 * 1024
"""Unpacked bytes of one bundle or one submission."""
MAX_CLASS_BYTES = 1024 * 1024 * 1024
"""Unpacked bytes of all submissions together."""
_IGNORED = ("__MACOSX", ".ipynb_checkpoints", ".git")


def read_tar(data: bytes) -> dict[str, bytes]:
    """All regular files by clean relative path. Raises `Permanent` (BadArchive) for what is no tar, unsafe or too
    large.
    """
    files: dict[str, bytes] = {}
    total = 0
    for member, archive in _members(data):
        total += member.size
        if member.size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES or len(files) >= MAX_FILES:
            raise _bad(
                f"{member.name}: more than {MAX_FILES} files, {MAX_FILE_BYTES} bytes a file or {MAX_TOTAL_BYTES} in all"
            )
        path = clean_path(member.name)
        if path is not None:
            handle = archive.extractfile(member)
            files[path] = handle.read() if handle else b""
    return files


def split_by_folder(data: bytes) -> dict[str, bytes]:
    """One tar for each top-level folder, by the folder's name; the class's tar holds one folder per student."""
    buffers: dict[str, io.BytesIO] = {}
    tars: dict[str, tarfile.TarFile] = {}
    total = 0
    for member, archive in _members(data):
        path = clean_path(member.name)
        if path is None or "/" not in path:
            continue
        total += member.size
        if total > MAX_CLASS_BYTES:
            raise _bad(f"more than {MAX_CLASS_BYTES} bytes unpacked; push the class in parts")
        folder, rest = path.split("/", 1)
        if folder not in tars:
            buffers[folder] = io.BytesIO()
            tars[folder] = tarfile.open(fileobj=buffers[folder], mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        info = tarfile.TarInfo(rest)
        info.size = member.size
        tars[folder].addfile(info, archive.extractfile(member))
    for archive in tars.values():
        archive.close()
    return {folder: buffers[folder].getvalue() for folder in sorted(buffers)}


def write_tar(files: Mapping[str, bytes]) -> bytes:
    """A tar with fixed times and owners: equal files, equal bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(files):
            info = tarfile.TarInfo(path)
            info.size = len(files[path])
            archive.addfile(info, io.BytesIO(files[path]))
    return buffer.getvalue()


def clean_path(name: str) -> str | None:
    """The path without `./`; None for what to ignore. Raises `Permanent` for a path that leaves its folder."""
    parts = [part for part in PurePosixPath(name).parts if part != "."]
    if name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise _bad(f"{name!r} leaves its folder")
    if not parts or any(part in _IGNORED or part.startswith("._") for part in parts):
        return None
    return "/".join(parts)


def _members(data: bytes) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                if member.issym() or member.islnk() or member.isdev():
                    raise _bad(f"{member.name} is a link or a device; only plain files and folders are allowed")
                if member.isreg():
                    yield member, archive
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _bad(f"not a readable tar: {error}") from error


def _bad(message: str) -> Permanent:
    return Permanent(message, reason="BadArchive")
