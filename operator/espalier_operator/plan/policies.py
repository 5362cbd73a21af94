"""NetworkPolicies of the namespaces that have jobs: the chart says what they hold, we make them where our pods are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from espalier_api.names import COMPONENT, MANAGED_BY
from espalier_kit.errors import Misconfigured
from espalier_kube.cluster import NETWORK_POLICY, Object
from espalier_kube.objects import metadata, typed


@dataclass(frozen=True, slots=True)
class PolicyTemplate:
    """One policy, the same in each namespace: its selectors without a namespace mean that namespace."""

    name: str
    spec: Object


def parse_templates(text: str) -> tuple[PolicyTemplate, ...]:
    """A YAML list of {name, spec}; raises `Misconfigured` when it is something else."""
    try:
        found = yaml.safe_load(text) or []
        return tuple(PolicyTemplate(str(each["name"]), dict(each["spec"])) for each in found)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise Misconfigured(
            f"ESPALIER_OPERATOR_POLICIES_FILE must hold a YAML list of NetworkPolicies as {{name, spec}}: {error}"
        ) from error


def read_templates(file: Path | None) -> tuple[PolicyTemplate, ...]:
    """Those of the file, none without one; raises `Misconfigured`."""
    if file is None:
        return ()
    try:
        return parse_templates(file.read_text())
    except OSError as error:
        raise Misconfigured(f"ESPALIER_OPERATOR_POLICIES_FILE: {error}") from error


def job_policies(namespace: str, templates: Iterable[PolicyTemplate]) -> tuple[Object, ...]:
    """The policies of one namespace; all jobs there share them, so nobody owns them."""
    labels = {MANAGED_BY: "espalier", COMPONENT: "network"}
    return tuple(
        typed(NETWORK_POLICY, metadata(each.name, namespace, labels=labels), spec=each.spec) for each in templates
    )
