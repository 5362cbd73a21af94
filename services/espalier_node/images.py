"""Image references → runtimes: directories of programs on this machine (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from espalier_kit.errors import Permanent

PULL_ERROR = "ErrImagePull"


@dataclass(frozen=True, slots=True)
class Image:
    """What a reference means here."""

    reference: str
    name: str
    bin: Path
    """First on PATH."""

    @property
    def image_id(self) -> str:
        return f"runtime://{self.name}@{self.bin}"


def short_name(reference: str) -> str:
    """`registry:5000/team/espalier-worker:1.2@sha256:…` → `espalier-worker`."""
    return reference.partition("@")[0].rpartition("/")[2].partition(":")[0]


def resolve(reference: str, runtimes: Mapping[str, Path]) -> Image:
    """The runtime of an image; an exact name goes before a glob. Raises `Permanent` (ErrImagePull) with a sentence."""
    name = short_name(reference)
    matches = sorted((p for p in runtimes if fnmatchcase(name, p)), key=lambda p: (p != name, -len(p)))
    if not matches:
        raise Permanent(
            f"image {reference} has no runtime on this node, whose containers are native processes; "
            f"known are {', '.join(sorted(runtimes))} (setting `runtimes` of the node agent)",
            reason=PULL_ERROR,
        )
    directory = runtimes[matches[0]]
    if not directory.is_dir():
        sentence = f"image {reference}: its runtime {directory} is not a directory of this node"
        raise Permanent(sentence, reason=PULL_ERROR)
    return Image(reference, name, directory)
