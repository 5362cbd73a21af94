"""What the pages tell people to type exists, and what they tell them to apply is valid."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from typer import Typer
from typer.main import get_command

from espalier_api import API_VERSION
from espalier_api.benchmarkcomparison import BenchmarkComparisonSpec
from espalier_api.benchmarkjob import BenchmarkJobSpec
from espalier_api.gradingjob import GradingJobSpec
from espalier_api.modelserver import ModelServerSpec
from espalier_cli.__main__ import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SPECS: dict[str, type[BaseModel]] = {
    "GradingJob": GradingJobSpec, "ModelServer": ModelServerSpec, "BenchmarkJob": BenchmarkJobSpec,
    "BenchmarkComparison": BenchmarkComparisonSpec,
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block."""
    yield from re.findall(r"^ *```(\w*)\n(.*?)^ *```", page.read_text(), flags=re.M | re.S)


def commands() -> list[tuple[str, str]]:
    """Every `espalier …` line, in blocks and in running text, with its page."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = [line for _, block in blocks(page) for line in block.splitlines() if line.startswith("espalier ")]
        lines += re.findall(r"`(espalier [a-z][^`]*)`", re.sub(r"```.*?```", "", text, flags=re.S))
        found += [(page.name, line.split(" #")[0].split("   ")[0].strip()) for line in lines]
    return found


def resolve(command: Any, words: list[str]) -> None:
    """Follow the words down the command tree; raises for a command or an option that does not exist."""
    while words and getattr(command, "commands", None):
        choices = words[0].split("|")
        for choice in choices:
            assert choice in command.commands, f"no command {choice}; there are {sorted(command.commands)}"
        command, words = command.commands[choices[-1]], words[1:]
    options = {option for parameter in command.params for option in parameter.opts}
    unknown = [word for word in words if word.startswith("-") and word.split("=")[0] not in options | {"--help"}]
    assert unknown == [], f"unknown option {unknown}; there are {sorted(options)}"


@pytest.mark.parametrize(("page", "line"), commands(), ids=[f"{page}: {line}" for page, line in commands()])
def test_a_documented_command_exists(page: str, line: str) -> None:
    assert isinstance(app, Typer)
    resolve(get_command(app), shlex.split(line)[1:])


def objects() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for page in PAGES:
        for language, text in blocks(page):
            if language == "yaml" and API_VERSION in text:
                found += [(page.name, document) for document in yaml.safe_load_all(text)]
    return found


@pytest.mark.parametrize(("page", "document"), objects(), ids=[page for page, _ in objects()])
def test_a_documented_object_is_valid(page: str, document: dict[str, Any]) -> None:
    text = json.dumps(document["spec"]).replace("artifact://\\u2026", "artifact://" + "0" * 64)
    assert SPECS[document["kind"]].model_validate_json(text)


EXAMPLES = sorted(
    path for path in (ROOT / "examples").rglob("*.yaml") if path.name not in ("assignment.yaml", "compose.yaml")
)


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.name for path in EXAMPLES])
def test_an_example_is_valid_and_can_be_applied_alone(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        assert document["apiVersion"] == API_VERSION
        assert document["metadata"]["name"]
        assert SPECS[document["kind"]].model_validate(document["spec"])


def test_documented_chart_values_are_valid() -> None:
    chart = ROOT / "charts/espalier"
    schema = json.loads((chart / "values.schema.json").read_text())
    pages = [text for page in PAGES for language, text in blocks(page) if language == "yaml" and "images:" in text]
    assert pages
    for text in pages:
        defaults = yaml.safe_load((chart / "values.yaml").read_text())
        jsonschema.validate(merged(defaults, yaml.safe_load(text)), schema)


def merged(defaults: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """As Helm merges values: maps deeply, everything else replaced."""
    made = dict(defaults)
    for key, value in values.items():
        old = defaults.get(key)
        made[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return made


def test_the_table_of_contents_is_complete() -> None:
    named = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.M))
    written = {page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert written <= named
    assert named - written <= {"performance.md"}, "only this page is made by a command, `make performance`"


def test_the_first_page_has_the_table_of_contents() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    entries = [entry for part in nav for title, below in part.items()
               for entry in (below if isinstance(below, list) else [{title: below}])]
    contents = [pair for entry in entries for pair in entry.items() if pair[1] != "index.md"]
    assert re.findall(r"^- \[(.*?)\]\((.*?)\)", (ROOT / "docs/index.md").read_text(), flags=re.M) == contents


def test_decisions_are_under_one_page() -> None:
    sizes = {page.name: len(page.read_text().split()) for page in (ROOT / "docs/adr").glob("*.md")}
    assert len(sizes) >= 5
    assert {name: words for name, words in sizes.items() if words > 500} == {}
