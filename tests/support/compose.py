"""A Compose file's services as processes of this machine: the same commands and environment, ports and paths mapped."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.programs import DEADLINE_S, Programs

_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Unset(ValueError):
    """A variable that the file demands; the sentence is the file's."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?sentence}`, as Compose fills them in. Raises `Unset`."""

    def value(found: re.Match[str]) -> str:
        name, way, more = found.groups()
        if variables.get(name):
            return variables[name]
        if way == "?":
            raise Unset(more)
        return more or ""

    return _VARIABLE.sub(value, text)


def read(path: Path, variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in: in values, after it was parsed."""

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [filled(each) for each in value]
        return interpolated(value, variables) if isinstance(value, str) else value

    made: dict[str, Any] = filled(yaml.safe_load(path.read_text()))
    return made


@dataclass(kw_only=True)
class Compose(Programs):
    """`folder` is where the file lies; `mapping` says what stands here for an address, a port or a path over there."""

    document: Mapping[str, Any]
    mapping: Mapping[str, str]

    def up(self, name: str, mapping: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
        """One container of a service."""
        service, own = self.document["services"][name], self._paths(name) | mapping
        command = [self._mapped(str(word), own) for word in service["command"]]
        process = self.begin(command, self._environment(service, own), name=name, at=self._directory(service, own))
        self._until_healthy(name, process, own)
        return process

    def run(self, name: str, *command: str) -> None:
        """Another command in a service's place, to its end: `docker compose run`."""
        service, own = self.document["services"][name], self._paths(name)
        subprocess.run([self._mapped(word, own) for word in command], check=True, cwd=self.folder, timeout=DEADLINE_S,
                       env=self._environment(service, own))

    # ------------------------------------------------------------ inside

    def _until_healthy(self, name: str, process: subprocess.Popen[bytes], own: Mapping[str, str]) -> None:
        """Its health check until it says so."""
        service = self.document["services"][name]
        form, *words = service["healthcheck"]["test"]
        assert form == "CMD"
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end and process.poll() is None:
            check = subprocess.run([self._mapped(word, own) for word in words], env=self._environment(service, own),
                                   capture_output=True, text=True, check=False, timeout=20)
            if check.returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"{name} is not healthy: {check.stdout}{check.stderr}\n{self.logs()}")

    def _paths(self, name: str) -> dict[str, str]:
        """What a service mounts, and its secrets, where they lie on this machine."""
        service = self.document["services"][name]
        found = {target: source for source, target in map(mount, service.get("volumes", ()))}
        found |= {f"/run/secrets/{name}": self.document["secrets"][name]["file"] for name in service.get("secrets", ())}
        return {target: str(self.folder / source) for target, source in found.items()}

    def _directory(self, service: Mapping[str, Any], own: Mapping[str, str]) -> Path:
        """The working directory: here it must hold what is mounted into it."""
        if "working_dir" not in service:
            return self.folder
        mounted = [Path(here) for there, here in own.items() if Path(there).parent == Path(service["working_dir"])]
        return mounted[0].parent

    def _environment(self, service: Mapping[str, Any], own: Mapping[str, str]) -> dict[str, str]:
        told = {name: self._mapped(str(value), own) for name, value in service.get("environment", {}).items()}
        return told | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def _mapped(self, text: str, own: Mapping[str, str]) -> str:
        for there, here in {**self.mapping, **own}.items():
            text = text.replace(there, here)
        return text


def mount(text: str) -> tuple[str, str]:
    """Source and target of `SOURCE:TARGET[:ro]`."""
    source, target, *_ = text.split(":")
    return source, target


def images(document: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Service, image and program of each."""
    for name, service in document["services"].items():
        yield name, service["image"], service["command"][0]
