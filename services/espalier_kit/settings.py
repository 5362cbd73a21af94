"""Settings: one frozen object per program, from `ESPALIER_<PROGRAM>_*`; an unknown variable is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from espalier_kit.errors import Misconfigured


class Settings(BaseModel):
    """Base: frozen, unknown keys refused. Built once, in `__main__`; nothing else reads the environment.

    A field's description, or the text below it, is what `--help` says of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


S = TypeVar("S", bound=Settings)

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def level(value: object) -> object:
    """A log level in any spelling, for a `BeforeValidator`; WARN and TRACE are understood."""
    name = str(value).upper()
    name = {"WARN": "WARNING", "TRACE": "DEBUG"}.get(name, name)
    if name not in LEVELS:
        raise ValueError(f"expected one of {', '.join(LEVELS).lower()}")
    return name


def prefix_of(program: str) -> str:
    """What the names of a program's variables begin with."""
    return f"ESPALIER_{program.upper()}_"


def load(cls: type[S], program: str, environ: Mapping[str, str] | None = None) -> S:
    """Read `ESPALIER_<PROGRAM>_<FIELD>`; raises `Misconfigured` naming each wrong variable."""
    prefix = prefix_of(program)
    source = os.environ if environ is None else environ
    values = {key.removeprefix(prefix).lower(): value for key, value in source.items() if key.startswith(prefix)}
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(
            f"{prefix}{'_'.join(str(p) for p in e['loc']).upper()}: {e['msg']}" for e in error.errors()
        )
        raise Misconfigured(f"settings of espalier-{program}: {problems}", reason="Misconfigured") from error
