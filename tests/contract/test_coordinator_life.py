"""The coordinator's state machine on real databases: fewer lives than in memory, with real files and a real server."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from espalier_coordinator.store import TaskStore
from espalier_coordinator.store.postgres import PostgresStore
from espalier_coordinator.store.sqlite import SqliteStore
from tests.support.coordinator_life import Life
from tests.support.postgres import running_server

SLOW = settings(stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
ON_SQLITE, ON_POSTGRES = settings(SLOW, max_examples=30), settings(SLOW, max_examples=6)


def test_any_life_on_sqlite(tmp_path: Path) -> None:
    numbers = count()

    class OnSqlite(Life):
        """The process that opens a file holds it alone, so nobody is deposed."""

        can_depose = False

        def open(self, before: TaskStore | None) -> TaskStore:
            if before is None:
                self.path = tmp_path / f"{next(numbers)}.db"
            return SqliteStore(self.path)

    run_state_machine_as_test(OnSqlite, settings=ON_SQLITE)
    assert next(numbers) >= ON_SQLITE.max_examples


def test_any_life_on_postgres() -> None:
    with running_server() as server:
        urls: list[str] = []

        class OnPostgres(Life):
            """A successor opens the database while the one before still has it."""

            def open(self, before: TaskStore | None) -> TaskStore:
                if before is None:
                    urls.append(server.new_database())
                return PostgresStore(urls[-1])

        run_state_machine_as_test(OnPostgres, settings=ON_POSTGRES)
        assert len(urls) >= ON_POSTGRES.max_examples
