"""Images into the container runtime of a Linux host: only what it lacks travels, and nothing is ever pulled."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from espalier_local import cables as wires
from espalier_local.containerd import ContainerdPlan, ctr
from espalier_local.imagestore import Image, Store

IMPORT_TIMEOUT_S = 300.0
"""Some 500 MB to unpack, on a machine with two busy cores."""


def load(runtime: ContainerdPlan, store: Store, images: Sequence[Image]) -> tuple[Image, ...]:
    """Give the runtime these images; returns those that it did not have. Raises `Permanent` with the tool's words."""
    known = named(wires.run(ctr(runtime, "images", "list")))
    lacking = tuple(image for image in images if known.get(image.name) != image.manifest)
    if lacking:
        present = wires.run(ctr(runtime, "content", "list", "--quiet")).split()
        with tempfile.TemporaryDirectory(dir=runtime.directory, prefix="images.") as scratch:
            archive = Path(scratch) / "images.tar"
            with archive.open("wb") as output:
                store.pack(lacking, present, output)
            wires.run(ctr(runtime, "images", "import", str(archive)), timeout_s=IMPORT_TIMEOUT_S)
    return lacking


def named(listing: str) -> Mapping[str, str]:
    """Digest of each image by name, from the table that `ctr images list` prints."""
    rows = (line.split() for line in listing.splitlines()[1:])
    return {row[0]: row[2] for row in rows if len(row) > 2}
