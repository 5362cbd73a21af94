"""The documents of `external.metrics.k8s.io/v1beta1` as the API server and the HPA controller read them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from espalier_coordinator.scaling.pending import METRIC
from espalier_kube.objects import timestamp
from espalier_kube.selectors import matches_labels

GROUP = "external.metrics.k8s.io"
VERSION = "v1beta1"
GROUP_VERSION = f"{GROUP}/{VERSION}"

_VERSION = {"groupVersion": GROUP_VERSION, "version": VERSION}
_GROUP = {"name": GROUP, "versions": [_VERSION], "preferredVersion": _VERSION}


def group_list() -> dict[str, Any]:
    """`/apis`."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_GROUP]}


def group() -> dict[str, Any]:
    """`/apis/external.metrics.k8s.io`."""
    return {"kind": "APIGroup", "apiVersion": "v1", **_GROUP}


def resources() -> dict[str, Any]:
    """`/apis/external.metrics.k8s.io/v1beta1`: one metric, which can be read and nothing else."""
    metric = {"name": METRIC, "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList",
              "verbs": ["get"]}
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": GROUP_VERSION, "resources": [metric]}


def openapi_v2() -> dict[str, Any]:
    """`/openapi/v2`: no types of its own, so that the API server need not merge any."""
    return {"swagger": "2.0", "info": {"title": "espalier metrics", "version": VERSION}, "paths": {}, "definitions": {}}


def openapi_v3() -> dict[str, Any]:
    """`/openapi/v3`: the list of documents, which is empty."""
    return {"paths": {}}


def values(units: Mapping[str, int], selector: str, now: datetime) -> dict[str, Any]:
    """The metric of the pools that the label selector chooses; an empty selector chooses all."""
    items = [
        {"metricName": METRIC, "metricLabels": {"pool": pool}, "timestamp": timestamp(now), "value": str(count)}
        for pool, count in units.items() if matches_labels(selector, {"pool": pool})
    ]
    return {"kind": "ExternalMetricValueList", "apiVersion": GROUP_VERSION, "metadata": {}, "items": items}


def status(code: int, message: str) -> dict[str, Any]:
    """A `metav1.Status` of a failure."""
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
            "reason": _REASONS.get(code, "InternalError"), "code": code}


_REASONS = {401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 405: "MethodNotAllowed"}
