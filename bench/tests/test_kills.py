"""200 mixed requests while engines, gateways, the shipper and the worker are killed at random.

Afterwards the usage rows say what the engines' own journals say: every finished answer to the
token, every cut stream within one checkpoint, every cut plain call as unknown; shipping it all
again changes nothing.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from django.core.management import call_command

from bench.enginesim.journal import Line, read
from bench.kills.run import KINDS, figures, run
from bench.kills.stack import KILLABLE, KilledStack, Model
from bench.kills.traffic import make, orders
from bench.kills.verdict import Asked, Row, contradictions, runs_by_request
from bench.processes import wait_until
from serving.journal.health import health_read
from serving.journal.segment import unshipped_bytes, writer_folders
from tenants.models import Scope
from tenants.tests.factories import make_key, make_organization

REQUESTS = 200
SEED = int(os.environ.get("TESSERA_KILL_SEED", "1"))
KILL_PAUSE_SECONDS = (0.3, 0.9)


@pytest.fixture
def home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.django_db(transaction=True)
@pytest.mark.stack
def test_usage_equals_what_the_engines_did_whatever_is_killed(
    home: Path, postgres: str, redis_url: str
) -> None:
    dice = random.Random(SEED)
    keys = {}
    models = []
    for slug in ("acme", "globex"):
        organization = make_organization(slug)
        made = make_key(organization, Scope.INFERENCE)
        keys[f"{slug}-desk"] = made.secret
        models.append(
            Model(
                organization=str(organization.id),
                project=str(made.key.project_id),
                name=f"{slug}-desk",
                deployment=str(uuid4()),
                version=str(uuid4()),
            )
        )
    stack = KilledStack(home, models)
    with stack.running():
        over = threading.Event()
        killed: Counter[str] = Counter()
        killer = threading.Thread(target=_kill_at_random, args=(stack, over, killed, dice))
        killer.start()
        asked = asyncio.run(make(stack.address, orders(REQUESTS, keys=keys, dice=dice)))
        over.set()
        killer.join()
        stack.wait_for(KILLABLE)
        _wait_until_quiet(home)
    lines = [line for journal in stack.engine_journals for line in read(journal)]
    with psycopg.connect(postgres, autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        wait_until(lambda: not _missing(lines, owner), what="every row", seconds=30)
        rows = _rows(owner)
        print(_summary(asked, rows, killed))
        assert contradictions(asked, runs_by_request(lines), rows) == []
        assert set(killed) == set(KILLABLE), "the seed killed each part at least once"
        assert sum(one.is_whole for one in asked) > REQUESTS / 4, "something was answered"
        quarantined = owner.execute("SELECT count(*) FROM usage_quarantine").fetchone()
        assert quarantined == (0,)
        said = io.StringIO()
        call_command("journal_replay", journal=home / "journal", stdout=said)
        assert " 0 facts were missing" in said.getvalue()
        assert _rows(owner) == rows


@pytest.mark.stack
@pytest.mark.timeout(400)
def test_every_token_is_accounted_for_when_servers_are_killed_too() -> None:
    """F01, F06, F10: a gateway, the shipper, Redis (back empty) and PostgreSQL, each by kill -9
    under load. ``python -m bench.kills`` is the long form.
    """
    outcome = run(dict.fromkeys(KINDS, 1), seed=SEED)
    print("\n".join(f"{row.name}: {row.value} {row.unit}" for row in figures(outcome)))
    assert outcome.wrong == []
    assert (outcome.tokens_off, outcome.quarantined, outcome.replayed.new) == (0, 0, 0)
    assert outcome.killed == dict.fromkeys(KINDS, 1)
    assert sum(one.is_whole for one in outcome.asked) > len(outcome.asked) / 2


def _kill_at_random(
    stack: KilledStack, over: threading.Event, killed: Counter[str], dice: random.Random
) -> None:
    """Each once in an order of its own, then whichever."""
    first = dice.sample(KILLABLE, len(KILLABLE))
    while not over.wait(dice.uniform(*KILL_PAUSE_SECONDS)):
        name = first.pop() if first else dice.choice(KILLABLE)
        if stack.kill(name):
            killed[name] += 1
        else:
            first.append(name)


def _wait_until_quiet(home: Path) -> None:
    """The living shipper has nothing left to do."""
    journal = home / "journal"
    started = time.time()

    def is_quiet() -> bool:
        health = health_read(journal)
        return health is not None and health.at > started + 1 and health.unshipped_bytes == 0

    wait_until(is_quiet, what="an empty journal", seconds=60)
    assert len(writer_folders(journal)) > 2
    assert unshipped_bytes(journal) > 0, "living writers hold reserved space"


def _missing(lines: list[Line], owner: psycopg.Connection) -> set[str]:
    return runs_by_request(lines).keys() - _rows(owner).keys()


def _rows(owner: psycopg.Connection) -> dict[str, Row]:
    found = owner.execute(
        "SELECT event_id, completeness, billable, input_tokens, cached_input_tokens, output_tokens"
        " FROM usage_event"
    ).fetchall()
    rows = {row[0]: Row(*row) for row in found}
    assert len(rows) == len(found), "an event is there once"
    return rows


def _summary(asked: list[Asked], rows: dict[str, Row], killed: Counter[str]) -> str:
    whole = sum(one.is_whole for one in asked)
    endings = Counter(row.completeness if row.billable else "not billed" for row in rows.values())
    return f"killed {dict(killed)}; {whole} of {len(asked)} answered whole; rows {dict(endings)}"
