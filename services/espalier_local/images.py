"""Container images that are one static program, put together without any builder: a Docker archive in a tar."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path

TINY_IMAGE = "espalier.local/tiny:1"
"""The first pods' image: `tiny` and nothing else. It is also what holds a pod's sandbox."""
_EPOCH = "1970-01-01T00:00:00Z"
_NOBODY = "65534:65534"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def archive(name: str, program: Path, *arguments: str) -> bytes:
    """An image of one program as its entry point with these default arguments, run as nobody.

    The same input gives the same bytes, hence the same image id.
    """
    path = f"/{program.name}"
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": _EPOCH,
            "config": {"Entrypoint": [path], "Cmd": list(arguments), "User": _NOBODY, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created": _EPOCH, "created_by": name}],
        },
        sort_keys=True,
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    return _tar({"manifest.json": json.dumps(manifest).encode(), config_name: config, "layer.tar": layer}, mode=0o644)


def _tar(files: Mapping[str, bytes], *, mode: int) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(content), mode, 0
            tar.addfile(entry, io.BytesIO(content))
    return output.getvalue()
