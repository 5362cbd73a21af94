"""The agent's settings: one YAML file, named by `ESPALIER_NODE_CONFIG`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from espalier_kit.errors import Misconfigured
from espalier_kit.settings import Settings, load

OWN_IMAGES = "espalier-*"
"""Image names that are this installation unless `runtimes` says otherwise."""


class Profile(Settings):
    """The hardware that a simulated Mac plays; a real machine reports its own."""

    chip: str = "Apple M3 Ultra"
    memory_gb: int = Field(default=96, gt=0)


class NodeSettings(Settings):
    """Everything the agent may be told. Relative paths are relative to the file's directory."""

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=63)
    """The Node's name, and its host name label."""
    kind: Literal["linux", "mlx"] = "linux"
    """What it is: linux runs workers, mlx (a Mac) runs model servers."""
    simulated: bool = False
    """This machine plays `profile`; the Node is labelled so."""
    profile: Profile = Profile()
    """`chip` and `memory_gb` that a simulated Mac plays."""
    address: IPv4Address
    """InternalIP, where the kubelet API listens."""
    pod_range: IPv4Network | None = None
    """Addresses given to pods, one each (loopback, Linux only). Without it every pod has the node's address."""
    port: int = Field(default=10250, gt=0, lt=65536)
    """Of the kubelet API."""
    state_dir: Path
    """Owned by the agent: keys, pod state, volumes, logs."""
    bootstrap_kubeconfig: Path
    """Kubeconfig with a bootstrap token; read only while the agent has no identity of its own."""
    kubeconfig: Path | None = None
    """Where the agent writes its own kubeconfig; default `<state_dir>/kubeconfig`."""
    client_ca_file: Path | None = None
    """CA of the kubelet API's clients; default: the CA in the kubeconfig."""
    pod_range_reserved: int = Field(default=15, ge=0)
    """The first addresses of `pod_range`, which are left to the node itself and to pinned pods."""

    lease_duration_s: int = Field(default=20, gt=0)
    """The node counts as lost when its Lease is older."""
    lease_renew_s: float = Field(default=5.0, gt=0)
    """How often the Lease is renewed."""
    status_refresh_s: float = Field(default=10.0, gt=0)
    """How often the node's status is looked at."""
    volume_refresh_s: float = Field(default=30.0, gt=0)
    """How often referenced ConfigMaps and Secrets are read again."""
    crash_backoff_first_s: float = Field(default=10.0, gt=0)
    """Pause before a crashed container starts again; it doubles each time."""
    crash_backoff_longest_s: float = Field(default=300.0, gt=0)
    """The longest such pause."""
    log_max_bytes: int = Field(default=10 << 20, ge=1024)
    """A container's log is rotated at this size; one older file is kept."""
    max_pods: int = Field(default=110, gt=0)
    """Pods that it takes."""

    runtimes: Mapping[str, Path] = Field(default_factory=dict)
    """Image name (a glob, without registry and tag) → directory that comes first on PATH in its containers.
    `espalier-*` is this installation's own `bin` unless given here."""
    readable_paths: tuple[Path, ...] = ()
    """Further paths of this machine that containers may read (an interpreter outside /usr, model files)."""
    uid: int = Field(default=64100, gt=0)
    """Pods run as this user and group when the agent is root."""
    nice: int = Field(default=10, ge=0, le=19)
    """Niceness of pods on an mlx node, so that a saturated model server leaves the agent its cycles."""
    labels: Mapping[str, str] = Field(default_factory=dict)
    """Further labels of the Node, set at registration."""

    @model_validator(mode="after")
    def _renewal_fits(self) -> Self:
        if self.lease_renew_s >= self.lease_duration_s:
            raise ValueError("lease_renew_s must be shorter than lease_duration_s, else the Lease lapses in between")
        return self

    @property
    def own_kubeconfig(self) -> Path:
        """Where this agent's identity is kept."""
        return self.kubeconfig or self.state_dir / "kubeconfig"

    def runtime_directories(self) -> dict[str, Path]:
        """`runtimes` with the default for our own images."""
        return {OWN_IMAGES: own_bin(), **self.runtimes}


class NodeEnvironment(Settings):
    """What the environment says."""

    config: Path
    """The YAML file with everything else."""


def own_bin() -> Path:
    """The directory of this installation's scripts (a virtual environment's `bin`)."""
    return Path(sys.executable).parent


def read_settings(environ: Mapping[str, str] | None = None) -> NodeSettings:
    """Read the file named by `ESPALIER_NODE_CONFIG`; raises `Misconfigured` with what to change."""
    return parse_file(load(NodeEnvironment, "node", environ).config)


def parse_file(path: Path) -> NodeSettings:
    """Read one YAML file; raises `Misconfigured` naming each field that is wrong, unknown or missing."""
    try:
        values = yaml.safe_load(path.read_text())
        return _absolute(NodeSettings.model_validate(values), path.parent.resolve())
    except OSError as error:
        sentence = f"ESPALIER_NODE_CONFIG: cannot read {path}: {error.strerror}"
        raise Misconfigured(sentence, reason="Misconfigured") from error
    except yaml.YAMLError as error:
        raise Misconfigured(f"{path} is not YAML: {error}", reason="Misconfigured") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(str(p) for p in e['loc']) or 'file'}: {e['msg']}" for e in error.errors())
        raise Misconfigured(f"{path}: {problems}", reason="Misconfigured") from error


def _absolute(settings: NodeSettings, base: Path) -> NodeSettings:
    def resolve(path: Path | None) -> Path | None:
        return None if path is None else Path(os.path.normpath(base / path))

    return settings.model_copy(update={
        "state_dir": resolve(settings.state_dir),
        "bootstrap_kubeconfig": resolve(settings.bootstrap_kubeconfig),
        "kubeconfig": resolve(settings.kubeconfig),
        "client_ca_file": resolve(settings.client_ca_file),
        "runtimes": {name: resolve(path) for name, path in settings.runtimes.items()},
        "readable_paths": tuple(resolve(path) for path in settings.readable_paths),
    })
