"""GradingJobs for life stories, on the tiny random model unless told otherwise."""

from __future__ import annotations

from typing import Any

from espalier_kube.cluster import Object

TINY = "random://tiny"


def template(*, source: str = TINY, **more: Any) -> Object:
    """A judge's own model server."""
    return {"template": {"models": [{"name": "tiny", "source": source}], **more}, "maxTokens": 400}


def grading_job(name: str, namespace: str, *, assignment: str, submissions: str, **spec: Any) -> Object:
    """A job over two artifact addresses; `spec` fields replace the defaults."""
    return {
        "apiVersion": "espalier.dev/v1alpha1",
        "kind": "GradingJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "assignment": {"uri": assignment},
            "submissions": {"uri": submissions},
            "models": {"code": template(), "feedback": template()},
            "performance": {"targets": {"code": 0, "feedback": 0, "combined": 0}},
            "workers": {"capacity": 2},
            **spec,
        },
    }
