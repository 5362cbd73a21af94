"""Root file systems out of a few Debian packages: extracted, not installed, so that they hold no package manager.

mmdebstrap downloads what apt verifies and unpacks it; no maintainer script runs. A base of some 45 packages takes
seconds, where a bootstrapped system takes a minute and brings a shell, perl and apt into every image.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from espalier_kit.errors import Permanent
from espalier_local.cables import SEARCH_PATH

RELEASE = "bookworm"
BASE = (
    "base-files", "ca-certificates", "libpython3.11-stdlib", "libstdc++6", "media-types", "netbase",
    "python3.11-minimal", "tzdata",
)  # fmt: skip
"""The interpreter and what programs ask a system for: names of ports and types, time zones, authorities."""
ADDITIONS = {"worker": ("coreutils", "dash"), "mlx": ("libgomp1", "libopenblas0-pthread")}
"""Program → what its image has beyond the base."""
USER = 65532
RECORD = """
mkdir -p "$1/var/lib/dpkg/status.d"
for deb in "$1"/var/cache/apt/archives/*.deb; do
    dpkg-deb --field "$deb" > "$1/var/lib/dpkg/status.d/$(dpkg-deb --field "$deb" Package)"
done
"""
"""One file per package, where scanners of images look for them; extraction alone leaves no record."""
_PRUNED = (
    "bin/tar", "dev/*", "etc/apt", "usr/bin/dpkg*", "usr/bin/mawk", "usr/bin/openssl", "usr/lib/*/gconv",
    "usr/lib/*/libdb-*", "usr/lib/dpkg", "usr/lib/python3.11/pydoc_data", "usr/sbin/dpkg*", "usr/share/bug",
    "usr/share/debconf", "usr/share/doc/*/changelog*", "usr/share/dpkg", "usr/share/info", "usr/share/lintian",
    "usr/share/locale", "usr/share/man", "usr/share/perl5", "var/cache/*", "var/lib/apt", "var/log/*",
)  # fmt: skip
"""What packages bring along and none of our programs asks for."""
_PASSWD = f"root:x:0:0::/root:/usr/sbin/nologin\nespalier:x:{USER}:{USER}::/tmp:/usr/sbin/nologin\n"
_GROUP = f"root:x:0:\nespalier:x:{USER}:\n"


def make_base(directory: Path) -> None:
    """The base's root file system at `directory`, which must not exist. Raises `Permanent` with mmdebstrap's words."""
    _extract(BASE, directory)
    _prune(directory)
    etc = directory / "etc"
    (etc / "passwd").write_text(_PASSWD)
    (etc / "group").write_text(_GROUP)
    (etc / "ssl" / "certs").mkdir(parents=True, exist_ok=True)
    authorities = sorted((directory / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (etc / "ssl/certs/ca-certificates.crt").write_text("".join(path.read_text() for path in authorities))


def make_addition(directory: Path, packages: Sequence[str], *, base: Path) -> None:
    """What these packages add to the base, as a tree to be copied over it."""
    _extract((*BASE, *packages), directory)
    _prune(directory)
    for path in _files(directory):
        twin = base / path.relative_to(directory)
        if os.path.lexists(twin) and _is_same(path, twin):
            path.unlink()
    for folder in sorted((path for path in directory.rglob("*") if _is_folder(path)), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _extract(packages: Sequence[str], directory: Path) -> None:
    command = [
        "mmdebstrap", "--quiet", "--variant=extract", f"--include={','.join(packages)}", f"--extract-hook={RECORD}",
        "--format=directory", RELEASE, str(directory),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PATH": SEARCH_PATH, "TMPDIR": scratch}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        words = " ".join(done.stderr.split())[-600:]
        raise Permanent(f"mmdebstrap cannot fetch Debian packages for images: {words}", reason="BuildFailed")


def _prune(directory: Path) -> None:
    for pattern in _PRUNED:
        for path in directory.glob(pattern):
            if _is_folder(path):
                shutil.rmtree(path)
            else:
                path.unlink()


def _files(directory: Path) -> Iterator[Path]:
    yield from sorted(path for path in directory.rglob("*") if not _is_folder(path))


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _is_same(path: Path, twin: Path) -> bool:
    if path.is_symlink() or twin.is_symlink():
        return path.is_symlink() and twin.is_symlink() and path.readlink() == twin.readlink()
    return filecmp.cmp(path, twin, shallow=False)
