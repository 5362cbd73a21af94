"""A callers file whose keys a test knows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from espalier_coordinator.callers import NamedAccess
from espalier_kit.clock import Clock, SystemClock
from espalier_kit.digest import sha256

CALLERS: Mapping[str, Mapping[str, Any]] = {
    "root": {"role": "admin"},
    "mine": {"role": "worker", "namespaces": ["ns"]},
    "theirs": {"role": "worker", "namespaces": ["other"]},
    "submitter": {"role": "submitter", "namespaces": ["ns"]},
}
"""By key, which is the name as well."""


def write_callers(path: Path, callers: Mapping[str, Mapping[str, Any]] = CALLERS) -> Path:
    """Write the file; a caller that names neither key nor certificate gets its own name as key."""
    told = [{"name": name, **(fields if "certificate" in fields else {"key": digest(name), **fields})}
            for name, fields in callers.items()]
    path.write_text(yaml.safe_dump({"callers": told}))
    return path


def digest(key: str) -> str:
    """As the file has it."""
    return f"sha256:{sha256(key.encode())}"


def named_access(folder: Path, callers: Mapping[str, Mapping[str, Any]] = CALLERS, clock: Clock | None = None
                 ) -> NamedAccess:
    """Access by such a file."""
    return NamedAccess(write_callers(folder / "callers.yaml", callers), clock or SystemClock())
