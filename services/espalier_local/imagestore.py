"""A directory of images in OCI's layout: what is in it, and the tar that a container runtime imports."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

_REFERENCE = "org.opencontainers.image.ref.name"
_IMPORTED_NAME = "io.containerd.image.name"
LIBRARY = "docker.io/library/"
"""What a runtime puts before a name that has no host."""
_LAYOUT = {"imageLayoutVersion": "1.0.0"}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that has been built."""

    name: str
    manifest: str
    """Digest of its manifest."""
    media_type: str
    manifest_bytes: int
    blobs: tuple[str, ...]
    """Digests of configuration and layers, the base first."""
    packed_bytes: int
    """Sum of its compressed layers."""


@dataclass(frozen=True, slots=True)
class Store:
    """The directory."""

    directory: Path

    def blob(self, digest: str) -> Path:
        """A blob's file."""
        algorithm, _, value = digest.partition(":")
        return self.directory / "blobs" / algorithm / value

    def find(self, reference: str, name: str) -> Image:
        """The image that was written under `reference`; `name` is what runtimes shall call it. Raises `KeyError`."""
        index = json.loads((self.directory / "index.json").read_text())
        for entry in index["manifests"]:
            if entry.get("annotations", {}).get(_REFERENCE) == reference:
                manifest = json.loads(self.blob(entry["digest"]).read_bytes())
                layers = manifest["layers"]
                return Image(
                    name, entry["digest"], entry["mediaType"], entry["size"],
                    (manifest["config"]["digest"], *(layer["digest"] for layer in layers)),
                    sum(layer["size"] for layer in layers),
                )  # fmt: skip
        raise KeyError(reference)

    def has(self, image: Image) -> bool:
        """Whether all of it is there."""
        return all(self.blob(digest).is_file() for digest in (image.manifest, *image.blobs))

    def keep_only(self, references: Collection[str]) -> None:
        """Forget all other images, and the blobs that nobody needs then."""
        path = self.directory / "index.json"
        index = json.loads(path.read_text())
        kept = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(_REFERENCE) in references]
        path.write_text(json.dumps({**index, "manifests": kept}))
        needed = {entry["digest"] for entry in kept}
        for entry in kept:
            manifest = json.loads(self.blob(entry["digest"]).read_bytes())
            needed |= {manifest["config"]["digest"], *(layer["digest"] for layer in manifest["layers"])}
        for blob in (self.directory / "blobs" / "sha256").iterdir():
            if f"sha256:{blob.name}" not in needed:
                blob.unlink()

    def pack(self, images: Iterable[Image], present: Collection[str], output: IO[bytes]) -> int:
        """Write the tar that a runtime imports, without the blobs that it has; returns how many were written."""
        chosen = list(images)
        wanted = {digest for image in chosen for digest in (image.manifest, *image.blobs)}
        missing = sorted(wanted - set(present))
        with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for digest in missing:
                tar.add(self.blob(digest), f"blobs/{digest.replace(':', '/')}", recursive=False)
            _add(tar, "oci-layout", _LAYOUT)
            _add(tar, "index.json", {"schemaVersion": 2, "manifests": [_entry(image) for image in chosen]})
        return len(missing)


def to_json(image: Image) -> dict[str, Any]:
    """For a file."""
    return asdict(image)


def from_json(data: Mapping[str, Any]) -> Image:
    """What `to_json` gave."""
    return Image(**{**data, "blobs": tuple(data["blobs"])})


def _entry(image: Image) -> dict[str, Any]:
    return {
        "mediaType": image.media_type, "digest": image.manifest, "size": image.manifest_bytes,
        "annotations": {_IMPORTED_NAME: LIBRARY + image.name},
    }  # fmt: skip


def _add(tar: tarfile.TarFile, name: str, content: object) -> None:
    data = json.dumps(content).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
