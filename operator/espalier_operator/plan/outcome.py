"""What a plan comes to: values that `apply`, `work` and `report` carry out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from espalier_api.common import JobStatus
from espalier_api.modelserver import ModelServerStatus
from espalier_kube.cluster import Kind, Object
from espalier_rpc.views import JobRequest, JobUpdate

WorkAction = JobRequest | JobUpdate


@dataclass(frozen=True, slots=True)
class Deletion:
    """A child that goes; only that very object (`uid`)."""

    kind: Kind
    name: str
    namespace: str
    uid: str


@dataclass(frozen=True, slots=True)
class Burial:
    """A pod on a node that is gone: marked as failed by disruption, then deleted, so that its controller moves on."""

    name: str
    namespace: str
    uid: str
    node: str


@dataclass(frozen=True, slots=True)
class Change:
    """A merge patch of fields that an existing child may change."""

    kind: Kind
    name: str
    namespace: str
    patch: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Notice:
    """A Kubernetes Event. Equal (reason, `key`) is one Event, counted up; with `once` told a single time."""

    reason: str
    message: str
    key: str = ""
    type: Literal["Normal", "Warning"] = "Normal"
    once: bool = False


@dataclass(frozen=True, slots=True)
class Followed:
    """What a part of the plan wishes of its own objects."""

    children: tuple[Object, ...] = ()
    changes: tuple[Change, ...] = ()
    deletions: tuple[Deletion, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Wishes, in the order in which they are carried out."""

    status: JobStatus | ModelServerStatus
    children: tuple[Object, ...] = ()
    has_credentials: bool = False
    """Whether a serving certificate and an API key are wished (model servers)."""
    changes: tuple[Change, ...] = ()
    deletions: tuple[Deletion, ...] = ()
    burials: tuple[Burial, ...] = ()
    work: tuple[WorkAction, ...] = ()
    notices: tuple[Notice, ...] = ()
    recheck_s: float | None = None
    """Look again after so many seconds even if nothing happens."""
