"""Runs inside an image while it is built: write its bill of materials, CycloneDX 1.6, from what is installed.

It lies in the image at /usr/share/sbom/espalier-PROGRAM.cdx.json. The same contents give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

DIRECTORY = Path("/usr/share/sbom")
DPKG = Path("/var/lib/dpkg")
Component = Mapping[str, Any]


def main(program: str, version: str) -> None:
    """Write the bill of this image."""
    found = sorted([*debian_components(), *python_components()], key=lambda component: component["bom-ref"])
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    text = json.dumps(bill(program, version, found), indent=1, sort_keys=True)
    (DIRECTORY / f"espalier-{program}.cdx.json").write_text(text + "\n")


def bill(program: str, version: str, components: list[Component]) -> dict[str, Any]:
    """The document."""
    image = {
        "type": "container",
        "bom-ref": f"espalier-{program}",
        "name": f"espalier-{program}",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": image},
        "components": components,
        "dependencies": [{"ref": image["bom-ref"], "dependsOn": [component["bom-ref"] for component in components]}],
    }


def debian_components() -> Iterator[Component]:
    """Packages as dpkg records them: one file each in a base made of extracted packages, else one file for all."""
    parts = DPKG / "status.d"
    texts = [path.read_text() for path in sorted(parts.iterdir())] if parts.is_dir() else []
    if not texts and (DPKG / "status").is_file():
        texts = (DPKG / "status").read_text().split("\n\n")
    for text in filter(str.strip, texts):
        fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line and not line.startswith(" "))
        name, version, architecture = (fields[key] for key in ("Package", "Version", "Architecture"))
        url = f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={quote(architecture)}"
        yield {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}


def python_components() -> Iterator[Component]:
    """Distributions in the image's environment."""
    for distribution in distributions():
        name, version = distribution.metadata["Name"].lower().replace("_", "-"), distribution.version
        url = f"pkg:pypi/{quote(name)}@{quote(version)}"
        component = {"type": "library", "bom-ref": url, "name": name, "version": version, "purl": url}
        licence = licence_of(distribution)
        yield component | ({"licenses": [{"license": {"name": licence}}]} if licence else {})


def licence_of(distribution: Distribution) -> str:
    """As the distribution states it, in one line; empty if it does not."""
    stated = distribution.metadata.get("License-Expression") or distribution.metadata.get("License") or ""
    return stated.strip().splitlines()[0][:80] if stated.strip() else ""


if __name__ == "__main__":
    main(*sys.argv[1:])
