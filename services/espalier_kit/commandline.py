"""The command line of a program: what all of them understand, and their settings in `--help`."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator, Mapping
from enum import Enum
from importlib.metadata import version
from typing import Any

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from espalier_kit.settings import Settings, prefix_of

_WIDEST = 100
_INDENT = " " * 6


def program_parser(
    program: str, description: str, *sections: tuple[str, Mapping[str, str]]
) -> argparse.ArgumentParser:
    """A parser with `--version` and `--check-settings`; the sections (a title; names and what they mean) end its help.

    `variables` and `fields` make the entries of a section from a settings class.
    """
    width = min(shutil.get_terminal_size().columns - 2, _WIDEST)
    parser = argparse.ArgumentParser(
        prog=f"espalier-{program}", description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n\n".join("\n".join(_lines(title, entries, width)) for title, entries in sections),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('espalier')}")
    parser.add_argument("--check-settings", action="store_true", help="read the settings, say what is wrong, and exit")
    return parser


def variables(cls: type[Settings], program: str) -> tuple[str, dict[str, str]]:
    """The section of a program's environment variables."""
    entries = {f"{prefix_of(program)}{name.upper()}{_default(field)}": field.description or ""
               for name, field in cls.model_fields.items()}
    return "environment variables (one of this prefix that is not here is an error)", entries


def fields(cls: type[Settings], title: str) -> tuple[str, dict[str, str]]:
    """The section of a settings file's fields."""
    return title, {f"{name}{_default(field)}": field.description or "" for name, field in cls.model_fields.items()}


def _default(field: FieldInfo) -> str:
    """` (required)`, `=VALUE`, or nothing where the description must say it."""
    if field.is_required():
        return " (required)"
    value = field.default.get_secret_value() if isinstance(field.default, SecretStr) else field.default
    if field.default_factory is not None or value in (None, "", ()) or isinstance(value, Settings):
        return ""
    return f"={_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _lines(title: str, entries: Mapping[str, str], width: int) -> Iterator[str]:
    yield f"{title}:"
    for name, meaning in entries.items():
        yield f"  {name}"
        yield from textwrap.wrap(" ".join(meaning.split()), width, initial_indent=_INDENT, subsequent_indent=_INDENT)
