"""Writers and shippers die by kill -9 at random; the database then says what the writers' oracles say."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command

from serving.journal.health import health_read
from serving.journal.segment import segment_list, unshipped_bytes, writer_folders

pytestmark = pytest.mark.django_db(transaction=True)

Row = tuple[str, int, int]

KILLED_WRITERS = 10
KILLED_SHIPPERS = 20
DEADLINE_SECONDS = 60


@dataclass
class Told:
    """What an oracle says about one event; ``may_`` is a call whose return nobody saw."""

    estimate: int = 0
    began: bool = False
    counted: int | None = None
    may_have_counted: int | None = None
    settled: int | None = None
    may_have_settled: int | None = None


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "journal").mkdir()
    return tmp_path


@pytest.fixture
def owner() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as connection:
        connection.execute("SET app.platform = 'on'")
        yield connection


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Path, started: list[subprocess.Popen[bytes]]) -> Start:
    """Starts one of our modules; whatever still runs in the end is killed."""

    def start(module: str, *arguments: object) -> subprocess.Popen[bytes]:
        with (home / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"serving.journal.{module}", *map(str, arguments)],
                env={**os.environ, "TESSERA_HOME": str(home)},
                stderr=log,
            )
        started.append(process)
        return process

    return start


def start_writer(start: Start, home: Path, seed: int) -> subprocess.Popen[bytes]:
    oracle = home / f"oracle-{seed}"
    process = start("tests.killed_writer", home / "journal", oracle, seed)
    _until(lambda: oracle.exists() and oracle.stat().st_size > 2000, "the writer writes")
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_nothing_is_lost_or_doubled_when_writers_and_shippers_are_killed(
    home: Path, owner: psycopg.Connection, start: Start
) -> None:
    dice = random.Random(0)
    shipper = start("shipper")
    kills = 0
    for seed in range(KILLED_WRITERS):
        writer = start_writer(start, home, seed)
        for _ in range(KILLED_SHIPPERS // KILLED_WRITERS):
            time.sleep(dice.uniform(0.05, 0.5))
            kill(shipper)
            kills += 1
            shipper = start("shipper")
        kill(writer)
    assert kills == KILLED_SHIPPERS
    _until(lambda: _all_closed(home, owner), "every journal is closed and shipped")
    told = _oracles(home)
    rows = _rows(owner)
    assert _contradictions(told, rows) == []
    assert len(rows) > 500
    assert owner.execute("SELECT count(*) FROM usage_quarantine").fetchone() == (0,)
    assert unshipped_bytes(home / "journal") == 0

    before = _dump(owner)
    said = io.StringIO()
    call_command("journal_replay", journal=home / "journal", stdout=said)
    assert " 0 facts were missing" in said.getvalue()
    assert _dump(owner) == before, "shipping it all again changes nothing"
    kill(shipper)


def test_a_second_shipper_waits_and_takes_over(home: Path, start: Start) -> None:
    journal = home / "journal"
    first = start("shipper")
    _until(lambda: health_read(journal) is not None, "the first shipper says it lives")
    second = start("shipper")
    _until(lambda: b"another shipper serves" in (home / "log").read_bytes(), "it waits")
    health = health_read(journal)
    assert health is not None
    assert health.pid == first.pid
    kill(first)
    _until(lambda: _shipper_pid(journal) == second.pid, "the second one takes over")
    second.terminate()
    assert second.wait(timeout=20) == 0


def test_without_an_address_the_shipper_says_so(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serving.journal.shipper"],
        env={**os.environ, "TESSERA_HOME": str(home), "TESSERA_DATABASE_SHIPPER_URL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "TESSERA_DATABASE_SHIPPER_URL is not set: where should usage go?\n"


def _oracles(home: Path) -> dict[str, Told]:
    told: dict[str, Told] = {}
    for oracle in home.glob("oracle-*"):
        for line in oracle.read_bytes().split(b"\n")[:-1]:
            word, event_id, *rest = json.loads(line)
            if word == "writer":
                continue
            event = told.setdefault(event_id, Told())
            match word:
                case "intent?":
                    event.estimate = rest[0]
                case "intent":
                    event.began = True
                case "count?":
                    event.may_have_counted = rest[0]
                case "count":
                    event.counted = rest[0]
                case "settle?":
                    event.may_have_settled = rest[0]
                case "settle":
                    event.settled = rest[0]
    return told


def _contradictions(told: dict[str, Told], rows: dict[str, Row]) -> list[str]:
    """Where the rows are not one of what the oracles allow."""
    wrong = [f"{event_id} was never begun" for event_id in rows.keys() - told.keys()]
    for event_id, event in told.items():
        row = rows.get(event_id)
        if row not in _allowed(event):
            wrong.append(f"{event_id}: {row} is not one of {_allowed(event)}")
    return wrong


def _allowed(event: Told) -> list[Row | None]:
    unknown = ("unknown", event.estimate, 0)
    if event.settled is not None:
        return [("final", 77, event.settled)]
    if not event.began:
        return [None, unknown]
    allowed: list[Row | None] = [] if event.counted is not None else [unknown]
    allowed += [("estimated", 77, n) for n in (event.counted, event.may_have_counted) if n]
    allowed += [("final", 77, n) for n in (event.may_have_settled,) if n]
    return allowed


def _rows(owner: psycopg.Connection) -> dict[str, Row]:
    found = owner.execute(
        "SELECT event_id, completeness, input_tokens, output_tokens FROM usage_event"
    )
    rows = {event_id: (completeness, sent, got) for event_id, completeness, sent, got in found}
    assert owner.execute("SELECT count(*) FROM usage_event").fetchone() == (len(rows),)
    return rows


def _all_closed(home: Path, owner: psycopg.Connection) -> bool:
    closed = owner.execute("SELECT writer FROM journal_position WHERE closed_at IS NOT NULL")
    names = {name for (name,) in closed}
    folders = writer_folders(home / "journal")
    return names == {folder.name for folder in folders} and all(
        segment.is_shipped for folder in folders for segment in segment_list(folder)
    )


def _dump(owner: psycopg.Connection) -> list[tuple[object, ...]]:
    tables = ("usage_event", "usage_quarantine", "journal_position")
    return [
        row for table in tables for row in owner.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
    ]


def _shipper_pid(journal: Path) -> int:
    health = health_read(journal)
    return health.pid if health is not None else 0


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_SECONDS} s: {what}"
        time.sleep(0.02)
