"""The images that Kubernetes' own tests need, of our own making, under the names that the tests ask for.

agnhost (the tests' own server, from its module), busybox (Debian's static one, with bash as its shell, since Debian's
ash drops variables whose names hold a dot), the same again where a test wants a web server, and pause (our own).
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from espalier_kit.errors import Permanent
from espalier_local.cables import SEARCH_PATH

RELEASE = "bookworm"
AGNHOST_TOOLS = (
    "bash", "bind9-dnsutils", "coreutils", "curl", "iproute2", "iputils-ping", "netcat-openbsd", "procps", "util-linux",
    "wget",
)  # fmt: skip
BUSYBOX = ("bash-static", "busybox-static")
_USER = "user-defined-in-image:x:1000:50000::/:/bin/sh\n"
_GROUP = "group-defined-in-image:x:50000:user-defined-in-image\n"
_ARCHITECTURE = "amd64"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an image starts: its published name's last part is found among the names that the tests ask for."""

    pattern: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]


AGNHOST_IMAGE = Recipe(r"/(agnhost|glibc-dns-testing):", ("/agnhost",), ("pause",))
"""The second name stands for another C library's resolver than busybox has: Debian's, which this image has."""
BUSYBOX_IMAGE = Recipe(r"/busybox:", (), ("sh",))
NGINX_IMAGE = Recipe(r"/nginx:", (), ("httpd", "-f", "-p", "80", "-h", "/usr/share/nginx/html"))
"""For tests that want some web server with a page there: busybox's, which is none of nginx."""
PAUSE_IMAGE = Recipe(r"/pause:", ("/tiny",), ("pause",))


def names(listed: str, recipe: Recipe) -> list[str]:
    """Those of `e2e.test --list-images` that this recipe makes. No registry's name is written down here."""
    return sorted({line for line in listed.split() if re.search(recipe.pattern, line) and "authenticated" not in line})


def agnhost_tree(directory: Path, program: Path, source: Path) -> None:
    """The tests' server with the tools and files that its published image has; `source` is its module's directory."""
    _debian(directory, AGNHOST_TOOLS, variant="essential")
    shutil.copy(program, directory / "agnhost")
    (directory / "agnhost-2").symlink_to("agnhost")
    (directory / "uploads").mkdir()
    for name in ("localhost.crt", "localhost.key"):
        shutil.copyfile(source / "porter" / name, directory / name)
    with (directory / "etc/passwd").open("a") as passwd, (directory / "etc/group").open("a") as group:
        passwd.write(_USER)
        group.write(_GROUP)


def busybox_tree(directory: Path) -> None:
    """busybox under each of its names, but for the shell."""
    _debian(directory, BUSYBOX, variant="extract")
    busybox = directory / "bin/busybox"
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        if not (directory / "bin" / name).exists():
            (directory / "bin" / name).symlink_to("busybox")
    for name in ("sh", "bash"):
        (directory / "bin" / name).unlink(missing_ok=True)
        (directory / "bin" / name).symlink_to("bash-static")
    etc = directory / "etc"
    etc.mkdir(exist_ok=True)
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:\n")
    (directory / "root").mkdir(exist_ok=True)


def nginx_tree(directory: Path) -> None:
    """busybox with a page to serve."""
    busybox_tree(directory)
    page = directory / "usr/share/nginx/html/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<html><body>a page</body></html>\n")


def pause_tree(directory: Path, program: Path) -> None:
    """The static program that waits."""
    directory.mkdir()
    shutil.copy(program, directory / "tiny")


def pack(tree: Path, tags: Iterable[str], recipe: Recipe, target: Path) -> None:
    """A Docker archive of one layer."""
    layer = target.with_suffix(".layer")
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as tar:
        for child in sorted(tree.iterdir()):
            tar.add(child, arcname=child.name, filter=lambda entry: None if entry.ischr() or entry.isblk() else entry)
    digest = hashlib.sha256()
    with layer.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {
                "Entrypoint": list(recipe.entrypoint), "Cmd": list(recipe.command), "WorkingDir": "/",
                "Env": [f"PATH={SEARCH_PATH}"],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        }
    ).encode()  # fmt: skip
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = json.dumps([{"Config": name, "RepoTags": list(tags), "Layers": ["layer.tar"]}]).encode()
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in (("manifest.json", manifest), (name, config)):
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        tar.add(layer, arcname="layer.tar")
    layer.unlink()


def _debian(directory: Path, packages: Iterable[str], *, variant: str) -> None:
    command = [
        "mmdebstrap", "--quiet", f"--variant={variant}", f"--include={','.join(packages)}", "--format=directory",
        RELEASE, str(directory),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PATH": SEARCH_PATH, "TMPDIR": scratch}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise Permanent(f"mmdebstrap: {' '.join(done.stderr.split())[-400:]}", reason="BuildFailed")
