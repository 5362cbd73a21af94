"""Tar archives from strangers: read in memory, nothing followed, nothing unbounded."""

from __future__ import annotations

import io
import lzma
import tarfile
import zlib
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
MAX_CLASS_FILES = 200_000
_IGNORED = ("__MACOSX", ".ipynb_checkpoints", ".git")
_NO_TAR = "not a readable tar, plain or compressed by gzip, bzip2 or xz"
_NO_TAR_BUT_ZIP = "not a readable tar but a zip file: unpack it and push the folder"


def read_tar(data: bytes) -> dict[str, bytes]:
    """All regular files by clean relative path. Raises `Permanent` (BadArchive) for what is no tar, unsafe or too
    large.
    """
    files: dict[str, bytes] = {}
    total = 0
    for member, archive in _members(data):
        total += member.size
        if member.size > MAX_FILE_BYTES or total > MAX_TOTAL_BYTES or len(files) >= MAX_FILES:
            raise _bad(f"more than {MAX_FILES} files, {MAX_FILE_BYTES} bytes a file or {MAX_TOTAL_BYTES} bytes in all")
        path = clean_path(member.name)
        if path is not None:
            handle = archive.extractfile(member)
            files[path] = handle.read() if handle else b""
    return files


def split_by_folder(data: bytes) -> dict[str, bytes]:
    """One tar for each top-level folder, by the folder's name; the class's tar holds one folder per student.

    Nobody may be lost unseen: an empty folder is a submission too, and a notebook outside of any folder, a path that is
    there twice, or a whole class inside one folder is refused (`Permanent`, BadArchive).
    """
    buffers: dict[str, io.BytesIO] = {}
    tars: dict[str, tarfile.TarFile] = {}
    paths: set[str] = set()
    total = 0
    for member, archive in _members(data, with_folders=True):
        path = clean_path(member.name)
        if path is None or ("/" not in path and not member.isdir()):
            _refuse_loose(path)
            continue
        total += member.size
        if total > MAX_CLASS_BYTES or len(paths) >= MAX_CLASS_FILES:
            raise _bad(f"more than {MAX_CLASS_BYTES} bytes or {MAX_CLASS_FILES} files unpacked; push it in parts")
        folder, _, rest = path.partition("/")
        if folder not in tars:
            buffers[folder] = io.BytesIO()
            tars[folder] = tarfile.open(fileobj=buffers[folder], mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        if member.isdir():
            continue
        if path in paths:
            raise _bad(f"{path} is there twice; if two students have one name, rename a folder")
        paths.add(path)
        info = tarfile.TarInfo(rest)
        info.size = member.size
        tars[folder].addfile(info, archive.extractfile(member))
    for archive in tars.values():
        archive.close()
    if len(buffers) == 1:
        _refuse_wrapped(next(iter(buffers)), paths)
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


def _members(data: bytes, *, with_folders: bool = False) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                member.name = _readable(member.name)
                if member.issym() or member.islnk() or member.isdev():
                    raise _bad(f"{member.name} is a link or a device; only plain files and folders are allowed")
                if member.isreg() or (with_folders and member.isdir()):
                    yield member, archive
    except tarfile.ReadError as error:
        raise _bad(_NO_TAR_BUT_ZIP if data.startswith(b"PK") else _NO_TAR) from error
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        raise _bad(f"a damaged tar: {error}") from error


def _readable(name: str) -> str:
    """A name that is no UTF-8, as old systems write them, by Latin-1: it must be printable and stay one of its own."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.encode(errors="surrogateescape").decode("latin-1")
    return name


def _refuse_loose(path: str | None) -> None:
    if path is not None and path.endswith(".ipynb"):
        raise _bad(f"a tar with the notebook {path} outside of any folder: it needs folders, one for each student")


def _refuse_wrapped(folder: str, paths: set[str]) -> None:
    """One folder that holds the same notebook in several folders of its own is a whole class, not a student."""
    notebooks = [path.split("/")[1:] for path in paths if path.endswith(".ipynb")]
    if any(len(parts) == 1 for parts in notebooks):
        return
    owners: dict[str, set[str]] = {}
    for parts in notebooks:
        owners.setdefault(parts[-1], set()).add(parts[0])
    name, count = max(((name, len(found)) for name, found in owners.items()), key=lambda x: x[1], default=("", 0))
    if count > 1:
        raise _bad(
            f"one folder, {folder}, with {name} in {count} folders of its own: "
            f"push that folder's content, so that each student's folder is at the top"
        )


def _bad(message: str) -> Permanent:
    return Permanent(message, reason="BadArchive")
