"""The Compose example: a valid file about our own images, whose services run and do a job."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

from bench.coordinator_process import free_ports
from espalier_cli.__main__ import app
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.settings import Settings
from espalier_local import recipe
from espalier_worker.settings import WorkerSettings
from tests.support.completions import completions
from tests.support.compose import Compose, Unset, images, read

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples/coordinator"
FILE = EXAMPLES / "compose.yaml"
PAGE = (ROOT / "docs/how-to/run-without-kubernetes.md").read_text().partition("## With Docker Compose")[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SETTINGS: dict[str, type[Settings]] = {"COORDINATOR": CoordinatorSettings, "WORKER": WorkerSettings}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return read(FILE, {"OWNER": "1000:1000"})


def test_it_is_a_compose_file(document: dict[str, Any]) -> None:
    schema = json.loads(files("check_jsonschema").joinpath("builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(document, schema)


def test_its_images_are_those_that_are_built_here_and_none_is_pulled(document: dict[str, Any]) -> None:
    for name, image, program in images(document):
        assert image == recipe.image_name(name, VERSION)
        assert program == f"espalier-{name}"
        assert f'CMD ["{program}"]' in (ROOT / "images/Dockerfile").read_text()
        assert document["services"][name]["pull_policy"] == "never"


def test_every_service_is_confined_and_has_a_health_check(document: dict[str, Any]) -> None:
    for service in document["services"].values():
        assert service["healthcheck"]["test"][0] == "CMD", "there is no shell in the images"
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("1000:1000", True, ["ALL"])
        assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_variable_is_a_setting_and_every_secret_is_used(document: dict[str, Any]) -> None:
    for service in document["services"].values():
        for name in service["environment"]:
            if match := re.fullmatch(r"ESPALIER_([A-Z]+)_(\w+)", name):
                assert match[2].lower() in SETTINGS[match[1]].model_fields
    assert set(document["services"]["worker"]["secrets"]) == set(document["secrets"])
    assert "secrets" not in document["services"]["coordinator"]


def test_without_its_owner_it_says_what_to_do() -> None:
    with pytest.raises(Unset, match=r"write \.env first"):
        read(FILE, {})


@pytest.fixture
def compose(document: dict[str, Any], tmp_path: Path) -> Iterator[Compose]:
    """The file in a folder of its own, on free ports."""
    shutil.copy(EXAMPLES / "my_executor.py", tmp_path)
    (tmp_path / "state").mkdir()
    grpc, http = free_ports(2)
    coordinator = {**document["services"]["coordinator"]}
    coordinator["environment"] = {**coordinator["environment"], "ESPALIER_COORDINATOR_HOST": "127.0.0.1",
                                  "ESPALIER_COORDINATOR_GRPC_PORT": grpc, "ESPALIER_COORDINATOR_HTTP_PORT": http}
    services = {**document["services"], "coordinator": coordinator}
    made = Compose(tmp_path, document={**document, "services": services}, mapping={
        "coordinator:50051": f"127.0.0.1:{grpc}", "//coordinator:": "//127.0.0.1:", "8081": str(http),
    })
    yield made
    made.close()


def test_the_services_run_and_do_a_job(compose: Compose, tmp_path: Path) -> None:
    (prepare,) = re.findall(r"run --rm --no-deps (coordinator) (.*)$", PAGE, flags=re.M)
    compose.run(prepare[0], *prepare[1].split())
    names = {path.name for path in (tmp_path / "state").iterdir()}
    assert names >= {"callers.yaml", "submitter.token", "worker.token", "tls"}, "what other services mount is there"
    coordinator = compose.up("coordinator")
    workers = [compose.up("worker", {"8082": str(port)}) for port in free_ports(2)]
    assert len(workers) == compose.document["services"]["worker"]["deploy"]["replicas"]
    with completions() as url:
        task = {"type": "benchmark", "payload": {"url": url, "model": "m", "prompt": "Hello"}}
        job = {"name": "first", "tasks": [{"key": str(number), **task} for number in range(4)]}
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        environ = {
            "ESPALIER_CLI_COORDINATOR": f"127.0.0.1:{compose.mapping['8081']}",
            "ESPALIER_CLI_CA_FILE": str(tmp_path / "state/tls/ca.crt"),
            "ESPALIER_CLI_API_KEY_FILE": str(tmp_path / "state/submitter.token"),
        }
        for command in (["submit", str(tmp_path / "job.yaml")], ["watch", "first"]):
            done = CliRunner().invoke(app, ["jobs", *command], env=environ)
            assert done.exit_code == 0, done.output + compose.logs()
    assert "first: complete" in done.output
    assert [compose.stop(process) for process in (*workers, coordinator)] == [0, 0, 0], compose.logs()
