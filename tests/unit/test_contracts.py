"""docs/reference/contracts.md against the programs: the settings it lists are the settings they read."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from espalier_kit.settings import Settings

PAGE = (Path(__file__).resolve().parents[2] / "docs/reference/contracts.md").read_text()
SECTION = PAGE.split("## Settings")[1].split("\n## ")[0]
ROWS = re.findall(r"^\| (\w+) \| (.*) \|$", SECTION, flags=re.M)
LISTED = {word: set(re.findall(r"`([A-Z_]+)`", row)) for word, row in ROWS}
BY_VARIABLE = ("operator", "coordinator", "worker", "mlx", "sandbox")


def settings(word: str) -> type[Settings]:
    found = getattr(importlib.import_module(f"espalier_{word}.settings"), f"{word.capitalize()}Settings")
    assert issubclass(found, Settings)
    return found


@pytest.mark.parametrize("word", BY_VARIABLE)
def test_every_listed_setting_is_read_by_the_program(word: str) -> None:
    read = {name.upper() for name in settings(word).model_fields}
    assert LISTED[word] - read == set()


@pytest.mark.parametrize("word", BY_VARIABLE)
def test_every_required_setting_is_listed(word: str) -> None:
    required = {name.upper() for name, field in settings(word).model_fields.items() if field.is_required()}
    assert required - LISTED[word] == set()


@pytest.mark.parametrize("word", BY_VARIABLE)
def test_every_setting_of_a_program_is_listed(word: str) -> None:
    read = {name.upper() for name in settings(word).model_fields}
    assert read - LISTED[word] == set()
