"""The command line: every wrong input is one sentence and an exit code, never a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from espalier_cli.__main__ import app
from espalier_cli.grade import job_object, read_template
from espalier_kit.errors import Permanent


def run(*arguments: str, cache: Path) -> tuple[int, str, str]:
    environ = {"XDG_CACHE_HOME": str(cache), "ESPALIER_KUBECONFIG": "", "COLUMNS": "300", "NO_COLOR": "1"}
    done = CliRunner().invoke(app, list(arguments), env=environ)
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("push", "/nowhere"), 1, "/nowhere does not exist"),
        (("jobs", "list"), 78, "espalier local up"),
        (("jobs", "list", "--kubeconfig", "/nowhere/config"), 78, "/nowhere/config"),
        (("jobs", "show", "pod/x"), 78, "espalier local up"),
        (("explain", "gj/class"), 78, "espalier local up"),
        (("report", "gj/class"), 78, "espalier local up"),
        (("grade", "class", "--bundle", "/a", "--submissions", "/b"), 1, "say who judges"),
        (("grade", "x", "--bundle", "/a", "--submissions", "/b", "--template", "/nowhere.yaml"), 1, "/nowhere.yaml"),
        (
            ("grade", "class", "--bundle", "/a", "--submissions", "/b", "--code-server", "x", "--feedback-server", "y"),
            1, "/a does not exist",
        ),
        (("grade", "class"), 2, "--bundle"),
        (("nonsense",), 2, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_input_is_one_sentence(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    exit_code, _, error = run(*arguments, cache=tmp_path)
    assert exit_code == code
    assert said in error
    assert "Traceback" not in error


def test_a_folder_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "espalier").write_text("no folder")
    code, _, error = run("local", "status", cache=tmp_path)
    assert (code, "Not a directory" in error) == (1, True)


def test_version(tmp_path: Path) -> None:
    code, said, _ = run("--version", cache=tmp_path)
    assert (code, said.strip()[0].isdigit()) == (0, True)


@pytest.mark.parametrize("command", ["push", "grade", "explain", "report", "jobs", "local"])
def test_help(tmp_path: Path, command: str) -> None:
    assert run(command, "--help", cache=tmp_path)[0] == 0


@pytest.mark.parametrize("group", ["jobs", "tasks", "workers", "jobs template"])
def test_every_command_can_be_told_whom_to_ask(group: str) -> None:
    found = get_command(app)
    for word in group.split():
        found = vars(found)["commands"][word]
    asked = {"--namespace", "--kubeconfig", "--system-namespace", "--coordinator", "--api-key-file", "--ca-file"}
    for name, command in vars(found)["commands"].items():
        if name != "template":
            assert asked <= {option for parameter in command.params for option in parameter.opts}, name


SPEC: dict[str, Any] = {
    "assignment": {"uri": "artifact://" + "0" * 64}, "submissions": {"uri": "artifact://" + "1" * 64},
    "models": {"code": {"modelServer": "a"}, "feedback": {"modelServer": "b"}},
}


def test_job_object() -> None:
    made = job_object("class", "course", SPEC)
    assert (made["kind"], made["metadata"]) == ("GradingJob", {"name": "class", "namespace": "course"})
    assert made["spec"] == SPEC


def test_invalid_spec_names_the_field() -> None:
    with pytest.raises(Permanent, match=r"spec\.scale\.points"):
        job_object("class", "course", {**SPEC, "scale": {"points": -1}})


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "no YAML"), ("kind: Pod", "of kind"), ("- 1", "of kind"), ("kind: GradingJob", "no spec")],
)
def test_wrong_templates_are_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(Permanent, match=said):
        read_template(tmp_path / "job.yaml")
