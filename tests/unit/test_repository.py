"""The rules that keep the tree readable: one word everywhere, small pieces, nothing of one machine in any file."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_ROOTS = ("crds", "operator", "services")
WORDS = ("operator", "coordinator", "worker", "node", "mlx")
CHART_WORDS = ("operator", "coordinator")
"""Programs with a component in the chart. Workers and model servers are made per job, agents run on their machines."""
GENERATED = "espalier_rpc/v1/"
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


@cache
def tracked() -> tuple[Path, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout.decode()
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python_files(*roots: str) -> list[Path]:
    wanted = [path for path in tracked() if path.suffix == ".py" and named(path).split("/")[0] in roots]
    return [path for path in wanted if GENERATED not in named(path)]


def texts() -> Iterator[tuple[str, str]]:
    for path in tracked():
        try:
            yield named(path), path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue


@cache
def project() -> dict[str, dict[str, dict[str, str]]]:
    loaded: dict[str, dict[str, dict[str, str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return loaded


@pytest.mark.parametrize("word", WORDS)
def test_one_word_names_package_extra_and_script(word: str) -> None:
    assert any((ROOT / root / f"espalier_{word}" / "__init__.py").exists() for root in PACKAGE_ROOTS)
    assert word in project()["project"]["optional-dependencies"]
    assert project()["project"]["scripts"][f"espalier-{word}"] == f"espalier_{word}.__main__:main"


@pytest.mark.parametrize("word", WORDS)
def test_every_program_has_its_three_usual_modules(word: str) -> None:
    package = next(
        ROOT / root / f"espalier_{word}" for root in PACKAGE_ROOTS if (ROOT / root / f"espalier_{word}").exists()
    )
    assert {"__main__.py", "settings.py", "metrics.py"} <= {path.name for path in package.iterdir()}


@pytest.mark.parametrize("word", CHART_WORDS)
def test_the_chart_calls_the_program_by_its_word(word: str) -> None:
    workload = next(
        (ROOT / "charts/espalier/templates" / word).glob("*s*et*.yaml" if word == "coordinator" else "dep*.yaml")
    )
    text = workload.read_text()
    assert f'(list . "{word}")' in text
    assert f"command: [espalier-{word}]" in text
    assert f"- name: {word}\n" in text


def test_no_module_lies_directly_in_operator() -> None:
    """It would shadow the standard library's `operator` for everything that runs from the root."""
    assert [named(path) for path in (ROOT / "operator").glob("*.py")] == []


def test_every_package_says_what_it_is_for_and_what_may_not_enter() -> None:
    packages = [
        path
        for path in python_files(*PACKAGE_ROOTS)
        if path.name == "__init__.py" and len(path.relative_to(ROOT).parts) == 3
    ]
    assert len(packages) >= 12
    for path in packages:
        doc = ast.get_docstring(ast.parse(path.read_text()))
        assert doc, f"{named(path)} has no docstring"
        assert len(doc.splitlines()) == 3, f"{named(path)}: the docstring has three lines"
        assert re.search(r"may (not )?(enter|import)", doc) or "Only" in doc or "No " in doc, (
            f"{named(path)}: what may not enter?"
        )


def test_modules_are_small() -> None:
    sizes = {named(path): len(path.read_text().splitlines()) for path in python_files(*PACKAGE_ROOTS, "bench")}
    assert {name: lines for name, lines in sizes.items() if lines > MAX_MODULE_LINES} == {}


def test_functions_are_small() -> None:
    large = [
        f"{named(path)}:{node.lineno} {node.name}"
        for path in python_files(*PACKAGE_ROOTS, "bench")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert large == []


FOREIGN = (
    "pypi" + ".org", "pythonhosted" + ".org", "docker" + ".io", "ghcr" + ".io", "quay" + ".io", "registry." + "k8s.io",
    "proxy.golang" + ".org", "huggingface" + ".co", "/root" + "/", "/work/" + "main", "/work/" + "shared",
    "/tmp/" + "brief",
)  # fmt: skip


@pytest.mark.parametrize("word", FOREIGN)
def test_no_file_names_a_registry_or_a_place_of_one_machine(word: str) -> None:
    found = [name for name, text in texts() if re.search(rf"(?<![\w$}}]){re.escape(word)}", text)]
    assert found == []


def test_no_test_skips_itself() -> None:
    forbidden = re.compile(r"pytest\.(skip|xfail|importorskip)\b|mark\.(skip|skipif|xfail)\b|--reruns")
    found = [
        named(path)
        for path in python_files("tests")
        if path != Path(__file__).resolve() and forbidden.search(path.read_text())
    ]
    assert found == []


def test_no_unfinished_work_is_left() -> None:
    unfinished = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|raise Not" + "Implemented")
    assert [
        named(path) for path in python_files(*PACKAGE_ROOTS, "bench", "tests") if unfinished.search(path.read_text())
    ] == []


def test_the_readme_is_short_and_names_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    assert "make demo" in text
    assert "make test" in text


@cache
def make_targets() -> frozenset[str]:
    return frozenset(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), flags=re.M))


def test_the_makefile_has_its_targets_with_help() -> None:
    wanted = "help dev generate verify lint test unit contract integration charts e2e demo down bench performance clean"
    assert set(wanted.split()) <= make_targets()


def test_every_make_command_in_the_documents_exists() -> None:
    for path in (path for path in tracked() if path.suffix == ".md"):
        named_targets = set(re.findall(r"`make ([a-z0-9-]+)", path.read_text()))
        assert named_targets <= make_targets(), named(path)


def test_ci_runs_the_readmes_test_command() -> None:
    text = (ROOT / ".ci/run").read_text()
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in text
    assert "make test" in text
    assert (ROOT / ".ci/run").stat().st_mode & 0o100


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert len(lines) > 50
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)] == []


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in (path for path in tracked() if path.suffix == ".md"):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
            if not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{named(path)} -> {target}")
    assert broken == []
