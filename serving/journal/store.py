"""The shipper's door to PostgreSQL. Nothing of psycopg travels further in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString, Protocol

import psycopg

from kernel.errors import Unavailable
from serving.journal.rows import (
    COLUMNS,
    QuarantineReason,
    QuarantineRow,
    UsageRow,
    conflict,
    quarantined,
    spending,
    without_repeats,
)

_CONNECT_OPTIONS = "-c statement_timeout=15000 -c lock_timeout=10000 -c timezone=UTC"


class StoreUnavailable(Unavailable):
    """PostgreSQL did not take the batch; the same batch may be given again."""

    code = "usage_store_unavailable"


@dataclass(frozen=True, slots=True)
class Position:
    """Everything of a writer before this is in the database."""

    segment: int
    offset: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A stretch of one writer's journal. ``closed``: the writer is dead and nothing follows.

    ``position`` is None for a stretch that is shipped again: how far the writer got is known.
    """

    writer: str
    position: Position | None
    rows: tuple[UsageRow, ...]
    refused: tuple[QuarantineRow, ...]
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a batch: rows that are new, rows that were there, and what stands aside."""

    new: int
    known: int
    quarantined: tuple[QuarantineRow, ...]


@dataclass(frozen=True, slots=True)
class Sighting:
    """What a shipper says of a writer on its node; ``held_because`` is empty where it is not."""

    writer: str
    is_living: bool
    held_because: str = ""


class UsageStore(Protocol):
    """Where facts go: all of a batch and its position, or nothing of it."""

    def positions(self) -> dict[str, Position]: ...

    def write(self, batch: Batch) -> Written: ...

    def saw(self, sightings: Sequence[Sighting]) -> None: ...


class PostgresStore:
    """One connection, opened when needed and thrown away on the first trouble."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: psycopg.Connection | None = None

    def positions(self) -> dict[str, Position]:
        """Raises ``StoreUnavailable``."""
        with self._transaction() as cursor:
            cursor.execute('SELECT writer, segment, "offset" FROM journal_position')
            return {writer: Position(segment, offset) for writer, segment, offset in cursor}

    def write(self, batch: Batch) -> Written:
        """Rows, what stands aside and the position in one transaction.

        Raises ``StoreUnavailable``; then nothing or, if the commit's answer was lost, all of it is
        there, and writing it again changes nothing.
        """
        try:
            with self._transaction() as cursor:
                return _write(cursor, batch)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            return self._write_singly(batch, error)

    def compare(self, batch: Batch) -> Written:
        """What writing the batch would come to. Raises ``StoreUnavailable``."""
        with self._transaction(force_rollback=True) as cursor:
            return _write(cursor, Batch(batch.writer, None, batch.rows, batch.refused))

    def saw(self, sightings: Sequence[Sighting]) -> None:
        """Tell operators which writers are here. Raises ``StoreUnavailable``."""
        columns = zip(*((s.writer, s.is_living, s.held_because) for s in sightings), strict=True)
        with self._transaction() as cursor:
            cursor.execute(_SAW, [list(values) for values in columns])

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _write_singly(self, batch: Batch, error: psycopg.Error) -> Written:
        """One row that the database will not have must not hold up the others."""
        if not batch.rows:
            raise StoreUnavailable(str(error)) from error
        accepted: list[UsageRow] = []
        refused = list(batch.refused)
        for row in batch.rows:
            problem = self._problem_with(row)
            if problem:
                refused.append(quarantined(row, QuarantineReason.DATABASE, problem))
            else:
                accepted.append(row)
        if len(accepted) == len(batch.rows):
            raise StoreUnavailable(str(error)) from error
        whole = Batch(batch.writer, batch.position, tuple(accepted), tuple(refused), batch.closed)
        return self.write(whole)

    def _problem_with(self, row: UsageRow) -> str:
        try:
            with self._transaction(force_rollback=True) as cursor:
                _insert_rows(cursor, [row])
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            return str(error)
        return ""

    @contextlib.contextmanager
    def _transaction(self, *, force_rollback: bool = False) -> Iterator[psycopg.Cursor]:
        try:
            connection = self._connect()
            with (
                connection.transaction(force_rollback=force_rollback),
                connection.cursor() as cursor,
            ):
                yield cursor
        except (psycopg.DataError, psycopg.IntegrityError):
            raise
        except psycopg.Error as error:
            self.close()
            raise StoreUnavailable(str(error).strip()) from error

    def _connect(self) -> psycopg.Connection:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(
                self._dsn,
                autocommit=True,
                connect_timeout=5,
                options=_CONNECT_OPTIONS,
                application_name="tessera-shipper",
                keepalives_idle=10,
                keepalives_interval=5,
                keepalives_count=3,
                tcp_user_timeout=20_000,
            )
        return self._connection


def _write(cursor: psycopg.Cursor, batch: Batch) -> Written:
    rows, conflicts, repeats = without_repeats(list(batch.rows))
    inserted = _insert_rows(cursor, rows)
    _add_spending(cursor, batch.writer, [row for row in rows if row.key in inserted])
    missed = [row for row in rows if row.key not in inserted]
    stored = _stored_hashes(cursor, missed)
    for row in missed:
        if stored[row.key] == row.fact_hash:
            repeats += 1
        else:
            conflicts.append(conflict(row, stored[row.key]))
    aside = _insert_quarantine(cursor, [*batch.refused, *conflicts])
    if batch.position is not None:
        _move_position(cursor, batch.writer, batch.position, closed=batch.closed)
    return Written(len(inserted), repeats, aside)


_NAMES: LiteralString = ", ".join(name for name, _ in COLUMNS)
_ARRAYS: LiteralString = ", ".join(f"%s::{kind}[]" for _, kind in COLUMNS)
_INSERT_ROWS: LiteralString = (
    f"INSERT INTO usage_event ({_NAMES}) SELECT * FROM unnest({_ARRAYS})"  # noqa: S608 - constants
    " ON CONFLICT (occurred_at, event_id) DO NOTHING RETURNING occurred_at, event_id"
)
_STORED_HASHES: LiteralString = (
    "SELECT occurred_at, event_id, fact_hash FROM usage_event"
    " JOIN unnest(%s::timestamptz[], %s::text[]) AS wanted (occurred_at, event_id)"
    " USING (occurred_at, event_id)"
)
# In the order of the accounts, so that a replay beside the shipper waits for it and no more.
_ADD_SPENDING: LiteralString = (
    "INSERT INTO writer_spend AS known (writer, account, organization_id, nano)"
    " SELECT %s, * FROM unnest(%s::text[], %s::uuid[], %s::bigint[])"
    " ON CONFLICT (writer, account) DO UPDATE SET nano = known.nano + excluded.nano"
)
# Of a writer that is closed, gateways believe that its spending is final: they are told.
_LATE_SPENDING: LiteralString = "SELECT tessera_late_spending(%s, %s::uuid[])"
_INSERT_QUARANTINE: LiteralString = (
    "INSERT INTO usage_quarantine (reason, detail, fact_hash, fact, event_id, occurred_at)"
    " VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (fact_hash, reason) DO NOTHING"
)
_MOVE_POSITION: LiteralString = (
    'INSERT INTO journal_position AS known (writer, segment, "offset", closed_at)'
    " VALUES (%(writer)s, %(segment)s, %(offset)s, CASE WHEN %(closed)s THEN now() END)"
    ' ON CONFLICT (writer) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset",'
    # What an operator wrote off stays closed, should its disk be found after all.
    " closed_at = CASE WHEN known.written_off_at IS NULL THEN excluded.closed_at"
    " ELSE known.closed_at END, updated_at = now()"
    ' WHERE (known.segment, known."offset") <= (excluded.segment, excluded."offset")'
)
_SAW: LiteralString = (
    'INSERT INTO journal_position (writer, segment, "offset", seen_at, is_living, held_because)'
    " SELECT writer, 0, 0, now(), is_living, held_because"
    " FROM unnest(%s::text[], %s::boolean[], %s::text[]) AS said (writer, is_living, held_because)"
    " ON CONFLICT (writer) DO UPDATE SET seen_at = excluded.seen_at,"
    " is_living = excluded.is_living, held_because = excluded.held_because"
)


def _insert_rows(cursor: psycopg.Cursor, rows: Sequence[UsageRow]) -> set[tuple[object, str]]:
    if not rows:
        return set()
    columns = zip(*(row.columns for row in rows), strict=True)
    cursor.execute(_INSERT_ROWS, [list(values) for values in columns])
    return {(occurred_at, event_id) for occurred_at, event_id in cursor}


def _add_spending(cursor: psycopg.Cursor, writer: str, rows: Sequence[UsageRow]) -> None:
    """What new rows cost becomes their writer's spending; what was there costs no second time."""
    sums = spending(rows)
    if sums:
        accounts, owners, amounts = zip(*sums, strict=True)
        cursor.execute(_ADD_SPENDING, [writer, list(accounts), list(owners), list(amounts)])
        cursor.execute(_LATE_SPENDING, [writer, list(set(owners))])


def _stored_hashes(
    cursor: psycopg.Cursor, rows: Sequence[UsageRow]
) -> dict[tuple[object, str], str]:
    if not rows:
        return {}
    keys = [[row.occurred_at for row in rows], [row.event_id for row in rows]]
    cursor.execute(_STORED_HASHES, keys)
    return {(occurred_at, event_id): fact_hash for occurred_at, event_id, fact_hash in cursor}


def _insert_quarantine(
    cursor: psycopg.Cursor, rows: Sequence[QuarantineRow]
) -> tuple[QuarantineRow, ...]:
    """Those that were not set aside before."""
    fresh = []
    for row in rows:
        cursor.execute(
            _INSERT_QUARANTINE,
            (row.reason, row.detail, row.fact_hash, row.text, row.event_id, row.occurred_at),
        )
        if cursor.rowcount:
            fresh.append(row)
    return tuple(fresh)


def _move_position(
    cursor: psycopg.Cursor, writer: str, position: Position, *, closed: bool
) -> None:
    cursor.execute(
        _MOVE_POSITION,
        {
            "writer": writer,
            "segment": position.segment,
            "offset": position.offset,
            "closed": closed,
        },
    )
