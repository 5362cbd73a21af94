"""Labels, annotations, resources and taints that more than one program reads. One spelling, here."""

from __future__ import annotations

from typing import Final

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
COMPONENT: Final = "app.kubernetes.io/component"
OWNER_KIND: Final = "espalier.dev/owner-kind"
OWNER_NAME: Final = "espalier.dev/owner-name"
WORKER_SUFFIX: Final = {"GradingJob": "worker", "BenchmarkJob": "generator", "BenchmarkComparison": "comparison"}
"""A job's Indexed Job and ServiceAccount are `<job>-<suffix>`: another for each kind, for jobs may share a name."""
SPEC_HASH: Final = "espalier.dev/spec-hash"

NODE_KIND: Final = "espalier.dev/node-kind"
"""Node label: `linux` or `mlx`."""
SIMULATED: Final = "espalier.dev/simulated"
"""Node label `true` where a Mac's profile is played by another machine."""
MLX_TAINT: Final = "espalier.dev/mlx"
METAL: Final = "espalier.dev/metal"
"""Extended resource: one MLX process per Mac."""
POD_IP: Final = "espalier.dev/pod-ip"
"""Pod annotation: the loopback address a virtual node of the local cluster gives this pod."""

FIELD_MANAGER: Final = "espalier"
COORDINATOR_AUDIENCE: Final = "espalier-coordinator"
CA_SECRET: Final = "espalier-ca"
"""Secret (operator namespace) with the authority, and ConfigMap (job namespaces) with its certificate `ca.crt`."""
OPERATOR_LEASE: Final = "espalier-operator"
