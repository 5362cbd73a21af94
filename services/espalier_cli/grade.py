"""`espalier grade`: push a bundle and a class, apply the GradingJob for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError

from espalier_api import API_VERSION
from espalier_api.gradingjob import GradingJobSpec
from espalier_cli.connection import artifacts_of, cluster_of
from espalier_cli.objects import follow_job
from espalier_cli.options import SYSTEM_NAMESPACE, Kubeconfig, Namespace, System, Where, job_name
from espalier_cli.packing import packed
from espalier_cli.push import store_file
from espalier_cli.terminal import out, run
from espalier_kit.errors import Permanent
from espalier_kube.cluster import Object


def grade(
    name: Annotated[str, typer.Argument(help="Name of the GradingJob.")],
    bundle: Annotated[Path, typer.Option(help="The assignment bundle: a folder or its archive.")],
    submissions: Annotated[Path, typer.Option(help="One folder per student, or their archive.")],
    template: Annotated[
        Path | None, typer.Option(help="A GradingJob file; its assignment and submissions are filled in.")
    ] = None,
    code_server: Annotated[str, typer.Option(help="ModelServer of the code judge (without a template).")] = "",
    feedback_server: Annotated[str, typer.Option(help="ModelServer of the feedback judge (without a template).")] = "",
    watch: Annotated[bool, typer.Option("--watch", help="Follow the job to its end.")] = False,
    namespace: Namespace = "default",
    kubeconfig: Kubeconfig = None,
    system: System = SYSTEM_NAMESPACE,
) -> None:
    """Grade a class: push both, apply the job, say how to follow it."""

    async def work() -> bool:
        """Whether all is well, as far as it was waited for."""
        where = Where(kubeconfig, namespace, system)
        spec = _wish(template, code_server, feedback_server)
        with packed(bundle) as assignment, packed(submissions) as handed_in:
            async with cluster_of(where) as cluster:
                async with artifacts_of(cluster, where) as store:
                    spec["assignment"] = {"uri": await store_file(store, assignment)}
                    spec["submissions"] = {"uri": await store_file(store, handed_in)}
                await cluster.apply(job_object(job_name(name), namespace, spec))
                out.print(f"gradingjob.espalier.dev/{name} applied in namespace {namespace}")
                if watch:
                    return await follow_job(cluster, name, namespace)
                out.print(f"follow it with: espalier jobs watch {name} -n {namespace}")
                return True

    if not run(work()):
        raise typer.Exit(1)


def job_object(name: str, namespace: str, spec: dict[str, Any]) -> Object:
    """The GradingJob; a spec that the API server would refuse is refused here, with each field's fault."""
    try:
        GradingJobSpec.model_validate(spec)
    except ValidationError as error:
        faults = "; ".join(f"spec.{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors())
        raise Permanent(f"the GradingJob is not valid: {faults}") from error
    return {
        "apiVersion": API_VERSION, "kind": "GradingJob",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    }


def _wish(template: Path | None, code_server: str, feedback_server: str) -> dict[str, Any]:
    if template is not None:
        if code_server or feedback_server:
            raise Permanent("give either --template or --code-server and --feedback-server, not both")
        return read_template(template)
    if not (code_server and feedback_server):
        raise Permanent("say who judges: --template FILE, or --code-server and --feedback-server")
    models = {"code": {"modelServer": code_server}, "feedback": {"modelServer": feedback_server}}
    return {"models": models}


def read_template(path: Path) -> dict[str, Any]:
    """The spec of a GradingJob file. Raises `Permanent` when it is none."""
    try:
        parsed = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise Permanent(f"cannot read {path}: {error}") from error
    except yaml.YAMLError as error:
        raise Permanent(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(parsed, dict) or parsed.get("kind") != "GradingJob":
        raise Permanent(f"{path} must hold one object of kind GradingJob")
    spec = parsed.get("spec")
    if not isinstance(spec, dict):
        raise Permanent(f"{path} has no spec")
    return dict(spec)
