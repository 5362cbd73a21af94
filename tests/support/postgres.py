"""A real PostgreSQL server of the tests' own, from the system's packages: initdb, start, kill, stop."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg

START_S = 60.0
_PACKAGE = "PostgreSQL's server programs are missing: install the package postgresql (Debian: apt install postgresql)"


@dataclass(frozen=True, slots=True)
class Place:
    """A host of a local cluster: how to start a program on its network, and its address there."""

    prefix: tuple[str, ...]
    address: str


class PostgresServer:
    """Listens on a Unix socket in its own folder, and on `place` if there is one; runs as an unprivileged user, as the
    server demands."""

    def __init__(self, folder: Path, place: Place | None = None) -> None:
        self._folder = folder
        self._place = place or Place((), "")
        self._programs = _programs()
        self._user = _user()
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "server.log"

    def prepare(self) -> None:
        """Make the cluster."""
        if self._user:
            shutil.chown(self._folder, self._user)
        made = subprocess.run(
            [*self._as_user(), self._programs / "initdb", "-D", self._folder / "data", "-U", "espalier", "-A", "trust",
             "-E", "UTF8", "--locale=C", "--no-sync"],
            cwd="/", capture_output=True, text=True, check=False, timeout=START_S,
        )
        assert made.returncode == 0, made.stderr
        if self._place.address:
            with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\nhost all all 10.0.0.0/8 trust\n")

    def start(self) -> None:
        """Start and wait until it answers."""
        options = {"listen_addresses": self._place.address, "unix_socket_directories": str(self._folder),
                   "shared_buffers": "32MB", "max_connections": "40"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._place.prefix, *self._as_user(), self._programs / "postgres", "-D", self._folder / "data",
                 *arguments],
                cwd="/", stdout=log, stderr=log,
            )
        end = time.monotonic() + START_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                psycopg.connect(self.url("postgres")).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.05)
        raise RuntimeError(f"PostgreSQL did not start: {self.log.read_text()[-2000:]}")

    def _as_user(self) -> list[str]:
        """Not `user=` of subprocess: it would fork, which a test with gRPC's threads does not survive."""
        if self._user is None:
            return []
        return ["setpriv", f"--reuid={self._user}", f"--regid={self._user}", "--init-groups"]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends every connection and shuts down; SIGQUIT is a crash: the next start recovers."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=START_S)
            self._process = None

    def url(self, database: str) -> str:
        """Where a database is."""
        return f"postgresql://espalier@/{database}?host={self._folder}"

    @property
    def address(self) -> str:
        """Where other hosts reach it."""
        return self._place.address

    def remote_url(self, database: str) -> str:
        """The same for other hosts."""
        return f"postgresql://espalier@{self._place.address}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"test{next(self._numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, database: str, statement: str) -> None:
        """One statement, as an administrator would."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running_server(place: Place | None = None) -> Iterator[PostgresServer]:
    """A started server; its folder lies where its user may go, and is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="espalier-postgres-"))
    server = PostgresServer(folder, place)
    try:
        server.prepare()
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _programs() -> Path:
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    found = installed[-1] if installed else shutil.which("initdb")
    assert found, _PACKAGE
    return Path(found).resolve().parent


def _user() -> str | None:
    """The server refuses to run as root; its package made a user for it."""
    if os.getuid() != 0:
        return None
    assert "postgres" in {entry.pw_name for entry in pwd.getpwall()}, _PACKAGE
    return "postgres"
