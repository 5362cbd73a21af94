"""How the CLI reaches a coordinator: that of a cluster, or a plain one that is named with a key."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from espalier_cli.connection import cluster_of, rest_of
from espalier_cli.options import SPELLED, Where
from espalier_cli.terminal import notes, out
from espalier_kit.addresses import is_loopback
from espalier_kit.errors import Conflict, Forbidden, Misconfigured, NotFound
from espalier_rpc.artifacts import web_client
from espalier_rpc.rest import RestClient

_UID = re.compile(r"[A-Za-z0-9._-]+")
"""What can stand in a path as it is; anything else is looked for in the list."""


class Format(StrEnum):
    """How answers are shown."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="A table for people, or JSON for programs.")]
Address = Annotated[
    str | None,
    typer.Option(
        "--coordinator", envvar="ESPALIER_CLI_COORDINATOR",
        help="A coordinator without a cluster: HOST:PORT of its HTTPS, or http://127.0.0.1:PORT; else the cluster's.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option("--api-key-file", envvar="ESPALIER_CLI_API_KEY_FILE", help="The key for --coordinator."),
]
Authority = Annotated[
    Path | None,
    typer.Option("--ca-file", envvar="ESPALIER_CLI_CA_FILE", help="Who signed its certificate; else the machine's."),
]


@dataclass(frozen=True, slots=True)
class Target:
    """Which coordinator: `address` where one is named, else that of the cluster `where`."""

    where: Where
    address: str | None = None
    key_file: Path | None = None
    ca_file: Path | None = None

    @property
    def namespace(self) -> str:
        """Whose jobs are meant."""
        return self.where.namespace

    @property
    def is_plain(self) -> bool:
        """Whether it runs without a cluster."""
        return self.address is not None


@asynccontextmanager
async def coordinator_of(target: Target) -> AsyncIterator[RestClient]:
    """Its calls. Raises `Misconfigured` where it is not clear who asks whom."""
    if target.address is None:
        async with cluster_of(target.where) as cluster, rest_of(cluster, target.where) as rest:
            yield rest
        return
    key = _read(target.key_file, "--api-key-file")
    ca_pem = None if target.ca_file is None else _read(target.ca_file, "--ca-file")
    async with web_client(url_of(target.address), ca_pem=ca_pem) as http:
        yield RestClient(http, token=lambda: key)


def url_of(address: str) -> str:
    """HOST:PORT is HTTPS; http:// only leads to this machine. Raises `Misconfigured`."""
    scheme, separator, rest = address.partition("://")
    if not separator:
        return f"https://{address}"
    if scheme == "http" and not is_loopback(rest.rsplit(":", 1)[0].strip("/")):
        raise Misconfigured(f"--coordinator {address}: without TLS the key could be read on the way: name HOST:PORT")
    return address


def _read(path: Path | None, option: str) -> str:
    if path is None:
        raise Misconfigured(f"{option} is needed with --coordinator: a file with one of its API keys "
                            "(espalier-coordinator --new-key makes one)")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise Misconfigured(f"{option} {path}: {error.strerror}") from error


# ---------------------------------------------------------------- finding and showing


async def uid_of(rest: RestClient, reference: str, namespace: str) -> str:
    """A job's uid, by uid, by name in the namespace or as `bj/NAME`. Raises `NotFound`, `Conflict`."""
    if _UID.fullmatch(reference) and await _is_uid(rest, reference, namespace):
        return reference
    listed = (await rest.get_all("/v1/jobs", "jobs", namespace=namespace))["jobs"]
    found = [str(job["uid"]) for job in listed if _is_meant(job, reference)]
    if not found:
        raise NotFound(f"the coordinator has no job {reference!r} in namespace {namespace}: see `espalier jobs list`")
    if len(found) > 1:
        raise Conflict(f"{len(found)} jobs have the name {reference!r}: give a uid: {', '.join(sorted(found))}")
    return found[0]


async def _is_uid(rest: RestClient, reference: str, namespace: str) -> bool:
    try:
        return bool((await rest.get(f"/v1/jobs/{reference}"))["namespace"] == namespace)
    except (NotFound, Forbidden):  # of another namespace, or a name
        return False


def _is_meant(job: Mapping[str, Any], reference: str) -> bool:
    word, _, name = reference.rpartition("/")
    kind = SPELLED.get(word.lower().removesuffix(".espalier.dev"))
    return job["name"] == reference or (kind is not None and (job["kind"], job["name"]) == (kind.kind, name))


def show(told: Mapping[str, Any], table: Table, output: Format, *, is_empty: bool = False, nothing: str = "") -> None:
    """The answer as it was given, or its table; a sentence where it would be empty."""
    if output is Format.JSON:
        out.print_json(json.dumps(told))
    elif is_empty:
        notes.print(nothing)
    else:
        out.print(table)


def table_of(columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> Table:
    """Cells as text; absent ones are dashes."""
    table = Table(*columns, box=None)
    for row in rows:
        table.add_row(*("-" if cell in (None, "") else escape(_short(cell)) for cell in row))
    return table


def _short(cell: Any) -> str:
    if isinstance(cell, float):
        return f"{cell:.2f}"
    return ",".join(map(str, cell)) if isinstance(cell, list) else str(cell)
