"""What each program says of itself with `--help`: every option and every setting, in a sentence."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import bench.__main__
from espalier_coordinator import compatibility as coordinator_names
from espalier_coordinator.settings import CoordinatorSettings
from espalier_kit.settings import Settings
from espalier_mlx.settings import MlxSettings
from espalier_node.settings import NodeEnvironment, NodeSettings
from espalier_operator.settings import OperatorSettings
from espalier_sandbox.settings import SandboxSettings
from espalier_worker import compatibility as worker_names
from espalier_worker.settings import WorkerSettings

PROGRAMS: dict[str, type[Settings]] = {
    "coordinator": CoordinatorSettings, "worker": WorkerSettings, "operator": OperatorSettings, "mlx": MlxSettings,
    "node": NodeEnvironment, "sandbox": SandboxSettings,
}
CONTRACTS = Path(__file__).resolve().parents[2] / "docs/reference/contracts.md"


def parser_of(program: str) -> argparse.ArgumentParser:
    made = import_module(f"espalier_{program}.__main__").parser_of()
    assert isinstance(made, argparse.ArgumentParser)
    return made


def entries(text: str) -> dict[str, str]:
    """Name → meaning of everything below the options."""
    found = re.findall(r"^  (\w+)(?:=.*| \(required\))?\n((?:^      .+\n?)+)", text, flags=re.M)
    return {name: " ".join(meaning.split()) for name, meaning in found}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_is_in_the_help_with_its_meaning(program: str) -> None:
    told = entries(parser_of(program).format_help())
    for name in PROGRAMS[program].model_fields:
        assert len(told[f"ESPALIER_{program.upper()}_{name.upper()}"]) > 5, name


def test_the_nodes_file_is_in_its_help() -> None:
    assert {*NodeSettings.model_fields} <= {*entries(parser_of("node").format_help())}


@pytest.mark.parametrize(("program", "names"), [
    ("coordinator", {coordinator_names.SIGN, *coordinator_names.NAMES}),
    ("worker", {worker_names.SIGN, worker_names.BIND, *worker_names.NAMES}),
])
def test_the_names_of_the_distributed_test_bench_are_in_the_help(program: str, names: set[str]) -> None:
    told = entries(parser_of(program).format_help())
    assert names <= told.keys()
    assert all(told[name].startswith(f"ESPALIER_{program.upper()}_") for name in names)


def test_defaults_are_shown_and_secrets_are_not() -> None:
    text = parser_of("coordinator").format_help()
    for line in ("HEARTBEAT_S=5", "DATA (required)", "FAIRNESS=priority", "INSECURE=no", "DATABASE"):
        assert f"  ESPALIER_COORDINATOR_{line}\n" in text


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_is_in_the_contracts(program: str) -> None:
    table = CONTRACTS.read_text().partition("## Settings")[2].partition("\n## ")[0]
    (row,) = re.findall(rf"^\| {program} \| .*$", table, flags=re.M)
    missing = [name for name in PROGRAMS[program].model_fields if f"`{name.upper()}`" not in row]
    assert missing == []


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        else:
            yield action


@pytest.mark.parametrize("parser", [*map(parser_of, PROGRAMS), bench.__main__.parser_of(["coordinator"])],
                         ids=[*PROGRAMS, "bench"])
def test_every_option_has_a_help_text(parser: argparse.ArgumentParser) -> None:
    assert [action.dest for action in actions(parser) if not action.help] == []
