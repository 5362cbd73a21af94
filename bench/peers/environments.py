"""A virtual environment per peer, made once in the cache: their dependencies exclude one another, and ours."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from espalier_local.locks import held

PROGRAMS = Path(__file__).parent / "programs"


@dataclass(frozen=True, slots=True)
class Environment:
    """A peer's interpreter and what it has."""

    directory: Path

    @property
    def python(self) -> str:
        """Its interpreter."""
        return str(self.directory / "bin" / "python")

    def program(self, name: str) -> str:
        """A script that came with its packages."""
        return str(self.directory / "bin" / name)

    def version(self, package: str) -> str:
        """What was installed."""
        listed = subprocess.run(
            [self.python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
        ).stdout
        return str(next(found["version"] for found in json.loads(listed) if found["name"].lower() == package))


def environment(cache: Path, name: str, requirements: tuple[str, ...]) -> Environment:
    """Make it, or find it."""
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:12]
    target = cache / "peers" / f"{name}-{key}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with held(target.parent / f"{target.name}.lock"):
        if not (target / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
            command = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet", *requirements]
            subprocess.run(command, check=True)
            (target / "complete").touch()
    return Environment(target)
