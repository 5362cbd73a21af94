"""PostgreSQL: one connection, one transaction per group; every transaction checks that its epoch still counts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict

from espalier_coordinator.store import Archived, Contents, DeadLetter, Snapshot, Write, relational
from espalier_coordinator.store.rows import Row, Rows
from espalier_kit.errors import Misconfigured, Retryable

CONNECTION: dict[str, str | int] = {
    "application_name": "espalier-coordinator", "connect_timeout": 5, "tcp_user_timeout": 10_000,
    "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "target_session_attrs": "read-write",
}
"""Unless the URL says otherwise: a server that vanished without a word is noticed in some 10 s, a replica is none."""

STATEMENT_MS = 20_000
"""No group takes so long: a server that does is treated as one that is away, and the group is written again."""
IDLE_IN_TRANSACTION_MS = 5_000
"""A coordinator that stands still in the middle of a group loses it: its successor need not wait for its locks."""

AWAY = (
    psycopg.OperationalError, psycopg.InterfaceError, psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
)
"""What passes: no server, a full disk, a lock held too long, a server that is a replica now, our own long pause."""

_SCHEMA_LOCK = 0x6573_7061_6C01
"""Two that start at once make the tables one after the other: IF NOT EXISTS alone is no protection."""

_TYPES = {"INTEGER": "BIGINT", "REAL": "DOUBLE PRECISION", "BLOB": "BYTEA", " WITHOUT ROWID": ""}

_BULK = {
    relational.PUT_TASK: """
      INSERT INTO tasks (sequence, id, job_uid, key, type, payload, depends_on, timeout_s, retries, tags, resources,
        cache) SELECT * FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bytea[],
        %s::text[], %s::float8[], %s::bigint[], %s::text[], %s::text[], %s::text[]) AS new ON CONFLICT DO NOTHING""",
    relational.PUT_ENDING: """
      INSERT INTO results SELECT n.sequence, n.state, n.attempts, n.reason, n.message, n.value, n.tallies, n.worker,
        n.execution_s, n.finished_at
      FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bytea[], %s::text[], %s::text[],
        %s::float8[], %s::float8[], %s::text[]) AS n (sequence, state, attempts, reason, message, value, tallies,
        worker, execution_s, finished_at, id)
      WHERE EXISTS (SELECT 1 FROM tasks t WHERE t.sequence = n.sequence AND t.id = n.id) ON CONFLICT DO NOTHING""",
}
"""The two that come by the thousand, as one statement over columns."""


class PostgresStore:
    """One database of its own. Connects again by itself when the connection was lost: the same `commit` then succeeds.

    No lost connection leaves doubt that matters: a group that was written although its answer got lost may be written
    again, and a coordinator that was replaced meanwhile is refused by the epoch.
    """

    def __init__(self, url: str) -> None:
        """Raises `Retryable` while the server cannot be reached and `Permanent` for a database of another version."""
        self._url = url
        self._connection: psycopg.Connection[Row] | None = None
        try:
            with self._connected() as db:
                self._prepare(db)
                self._epoch = self._found_epoch(db, relational.GET_EPOCH)
        except BaseException:
            self.close()
            raise

    def _prepare(self, db: psycopg.Connection[Row]) -> None:
        with db.transaction():
            db.execute("SET LOCAL statement_timeout = 0")  # a step may copy every result there is
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
            db.execute(_made(relational.META))
            found = db.execute(_sql(relational.GET_VERSION)).fetchone()
            for statement in relational.migrations(found[0] if found else None, where(self._url)):
                db.execute(_made(statement))
            db.execute(_sql(relational.PUT_VERSION), (relational.SCHEMA_VERSION,))

    def _found_epoch(self, db: psycopg.Connection[Row], query: str) -> int:
        row = db.execute(_sql(query)).fetchone()
        return int(row[0]) if row else 0

    def begin_epoch(self) -> int:
        with self._connected() as db:
            self._epoch = self._found_epoch(db, relational.NEXT_EPOCH)
        return self._epoch

    def load(self) -> Snapshot:
        with self._connected() as db, db.transaction():
            db.execute("SET LOCAL statement_timeout = 0")
            return relational.snapshot(lambda query, _: _stream(db, query))

    def job(self, uid: str) -> Snapshot:
        with self._connected() as db, db.transaction():
            return relational.one_job(_selecting(db), uid)

    def archived(self, uids: Sequence[str]) -> tuple[Archived, ...]:
        with self._connected() as db:
            return relational.archived(_selecting(db), uids)

    def dead_letters(
        self, namespace: str | None, *, job_uid: str = "", after: int = 0, limit: int = 1000
    ) -> tuple[DeadLetter, ...]:
        with self._connected() as db:
            return relational.dead_letters(_selecting(db), namespace, job_uid, after, limit)

    def contents(self, *, after: int = 0, limit: int = 1000) -> tuple[Contents, ...]:
        with self._connected() as db:
            return relational.contents(_selecting(db), after, limit)

    def commit(self, writes: Sequence[Write]) -> None:
        with self._connected() as db, db.transaction():
            # Held until the end of the transaction: whoever begins the next epoch waits for this group.
            relational.check_epoch(self._epoch, self._found_epoch(db, f"{relational.GET_EPOCH} FOR SHARE"))
            for statement, rows in relational.batches(writes):
                _execute(db, statement, rows)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Row]]:
        """The connection, a new one if there is none; whatever breaks it is told as `Retryable`."""
        try:
            if self._connection is None:
                self._connection = connect(self._url)
            yield self._connection
        except AWAY as error:
            self.close()
            raise unavailable(self._url, error) from error


def connect(url: str, **settings: int) -> psycopg.Connection[Row]:
    """A connection whose commits are durable; `settings` are milliseconds of the server's timeouts."""
    timeouts = {"statement_timeout": STATEMENT_MS, "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS}
    options = {name: value for name, value in CONNECTION.items() if name not in _parts(url)}
    connection = psycopg.connect(url, autocommit=True, **options)  # type: ignore[arg-type]
    try:
        for name, value in {**timeouts, **settings}.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
        connection.execute("SELECT set_config('synchronous_commit', 'on', false) "
                           "WHERE current_setting('synchronous_commit') = 'off'")
    except BaseException:
        connection.close()
        raise
    return connection


def where(url: str) -> str:
    """The database in words, without its password."""
    parts = _parts(url)
    host = parts.get("host") or parts.get("hostaddr") or "localhost"
    return f"{parts.get('dbname', '')!r} at {host}:{parts.get('port', 5432)}"


def _parts(url: str) -> Mapping[str, object]:
    """Raises `Misconfigured`, with nothing of the URL in it: what is wrong may be the password."""
    try:
        return conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise Misconfigured("ESPALIER_COORDINATOR_DATABASE is no URL that PostgreSQL understands: "
                            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE?PARAMETER=VALUE, with special characters as "
                            "%XX", reason="Misconfigured") from None


def unavailable(url: str, error: psycopg.Error) -> Retryable:
    """What the server or the network said, on one line."""
    said = " ".join(str(error).split()) or type(error).__name__
    return Retryable(f"the database {where(url)} cannot be used: {said}", reason="StoreUnavailable")


def _execute(db: psycopg.Connection[Row], statement: str, rows: Rows) -> None:
    if statement == relational.PUT_ENDING:  # the first one counts, and the server does not promise to keep an order
        rows = list({row[0]: row for row in reversed(rows)}.values())
    if bulk := _BULK.get(statement):
        db.execute(_sql(bulk), [list(column) for column in zip(*rows, strict=True)])
    else:
        with db.cursor() as cursor:
            cursor.executemany(_sql(statement), rows)


def _stream(db: psycopg.Connection[Row], query: str) -> Iterator[Row]:
    """Rows as they come, not all of them at once twice."""
    with db.cursor(name="load", binary=True) as cursor:
        cursor.itersize = 5_000
        cursor.execute(_sql(query))
        yield from cursor


def _selecting(db: psycopg.Connection[Row]) -> relational.Select:
    return lambda query, parameters: iter(db.execute(_sql(query), parameters, binary=True).fetchall())


def _made(statement: str) -> bytes:
    """A statement that makes tables, with PostgreSQL's types."""
    return _sql(re.sub("|".join(_TYPES), lambda m: _TYPES[m[0]], statement))


def _sql(statement: str) -> bytes:
    """Our own statement, in the words of PostgreSQL. Bytes, since psycopg takes text only as a literal."""
    return statement.replace("?", "%s").encode()
