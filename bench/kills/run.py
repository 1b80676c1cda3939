"""Gateways, shipper, Redis and PostgreSQL killed again and again under load; then every token is
accounted for.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psycopg

from bench.backing import Backing, backing
from bench.enginesim.journal import read
from bench.kills.stack import GATEWAYS, KilledStack, Model
from bench.kills.stalls import Stalls
from bench.kills.traffic import make_until
from bench.kills.verdict import (
    SHORT_SECONDS,
    Asked,
    Lack,
    Row,
    Run,
    contradictions,
    lacks,
    runs_by_request,
)
from bench.processes import NotStarted, wait_until
from bench.results import Row as Figure
from serving.journal.health import health_read
from serving.journal.replay import Replayed, replay
from serving.journal.store import PostgresStore
from supervisor.lifecycle import STEADY_SECONDS
from supervisor.parts import Health, Part
from supervisor.postgres import STARTUP_MESSAGE, PostgresServer
from supervisor.valkey import THROWAWAY as IN_MEMORY
from supervisor.valkey import ValkeyServer

KINDS: Mapping[str, tuple[str, ...]] = {
    "gateway": GATEWAYS,
    "shipper": ("shipper",),
    "redis": ("redis",),
    "postgres": ("postgres",),
}
FULL = dict.fromkeys(KINDS, 20)
SHORT = dict.fromkeys(KINDS, 2)
PAUSE_SECONDS = (0.5, 1.5)  # between one part's return and the next kill
_QUICK_DEATHS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run came to. ``wrong`` has a sentence for each thing that does not fit together."""

    seed: int
    killed: Mapping[str, int]
    asked: list[Asked]
    rows: Mapping[str, Row]
    wrong: list[str]
    tokens_off: int
    quarantined: int
    replayed: Replayed
    lacks: list[Lack]


def run(kills: Mapping[str, int], *, seed: int) -> Outcome:
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        folder = Path(name)
        with backing(folder) as back:
            pass  # the servers of the stack go on with this data
        return _run(back, _stack(folder, back), kills, dice, seed)


def figures(outcome: Outcome) -> list[Figure]:
    kills = ", ".join(f"{count} of {kind}" for kind, count in outcome.killed.items())
    seconds = [lack.seconds for lack in outcome.lacks] or [0.0]
    endings = Counter(r.completeness if r.billable else "free" for r in outcome.rows.values())
    promised = (
        (f"tokens lost or doubled over kills: {kills}", "tokens", outcome.tokens_off, 0.0),
        ("calls that contradict the engines' journals", "calls", len(outcome.wrong), 0.0),
        ("facts quarantined", "facts", outcome.quarantined, 0.0),
        ("facts that shipping everything again adds", "facts", outcome.replayed.new, 0.0),
        (
            "a cut stream lacks at most, less what its gateway waited for a core",
            "s",
            max((lack.seconds - lack.late_seconds for lack in outcome.lacks), default=0.0),
            SHORT_SECONDS,
        ),
    )
    told = (
        ("seed", "", outcome.seed),
        ("a cut stream lacks, median", "s", median(seconds)),
        ("a cut stream lacks at most, waiting included", "s", max(seconds)),
        ("calls made", "calls", len(outcome.asked)),
        ("answered whole", "calls", sum(one.is_whole for one in outcome.asked)),
        *((f"booked as {ending}", "events", count) for ending, count in sorted(endings.items())),
    )
    return [
        *(Figure(name=n, unit=u, value=value, target=target) for n, u, value, target in promised),
        *(Figure(name=name, unit=unit, value=value) for name, unit, value in told),
    ]


def measure(*, short: bool) -> list[Figure]:
    """Raises ``AssertionError`` with every contradiction: these figures are promises."""
    outcome = run(SHORT if short else FULL, seed=1)
    if outcome.wrong:
        raise AssertionError("\n".join(outcome.wrong))
    return figures(outcome)


def _stack(folder: Path, back: Backing) -> KilledStack:
    postgres = PostgresServer(folder / "postgres")
    valkey = ValkeyServer(folder / "valkey", settings=IN_MEMORY)  # comes back empty every time
    valkey.prepare()
    tenant = back.tenant
    model = Model(
        organization=tenant.organization,
        project=tenant.project,
        name="desk",
        deployment="00000000-0000-0000-0000-000000000004",
        version="00000000-0000-0000-0000-000000000005",
    )
    servers = (
        Part(
            name="postgres",
            argv=postgres.argv(),
            health=Health(
                address=f"unix:{postgres.socket_path}",
                send=STARTUP_MESSAGE.decode("latin-1"),
                expect="R",
            ),
            stop_signal="SIGINT",
        ),
        Part(
            name="redis",
            argv=valkey.argv(),
            health=Health(
                address=f"unix:{valkey.socket_path}",
                send=f"AUTH {valkey.password}\r\nPING\r\n",
                expect="+OK\r\n+PONG",
            ),
        ),
    )
    return KilledStack(back.home, [model], environment=back.environment, servers=servers)


def _run(
    back: Backing, stack: KilledStack, kills: Mapping[str, int], dice: random.Random, seed: int
) -> Outcome:
    killed: Counter[str] = Counter()
    errors: list[Exception] = []
    over = threading.Event()
    keys = {stack.models[0].name: back.tenant.key}

    def killing() -> None:
        try:
            _kill_all(stack, kills, killed, dice)
        except Exception as error:
            errors.append(error)
        over.set()

    with Stalls(lambda: stack.gateway_pids) as stalls, stack.running():
        killer = threading.Thread(target=killing)
        killer.start()
        asked = asyncio.run(
            make_until(stack.address, over.is_set, keys=keys, dice=random.Random(seed))
        )
        killer.join()
        if errors:
            raise errors[0]
        wait_until_shipped(back.home)
        lines = [line for journal in stack.engine_journals for line in read(journal)]
        runs = runs_by_request(lines, late=stalls.before, cut_at=stack.cut_at)
        owner = back.environment["TESSERA_DATABASE_OWNER_URL"]
        with suppress(NotStarted):  # then the verdict names what is missing
            wait_until(lambda: runs.keys() <= booked(owner).keys(), what="every row", seconds=60)
        store = PostgresStore(back.environment["TESSERA_DATABASE_SHIPPER_URL"])
        rows = booked(owner)
        replayed = replay(back.home / "journal", store)
        store.close()
        if booked(owner) != rows:
            raise AssertionError("shipping everything again changed what was booked")
        return Outcome(
            seed=seed,
            killed=killed,
            asked=asked,
            rows=rows,
            wrong=contradictions(asked, runs, rows),
            tokens_off=_tokens_off(runs, rows),
            quarantined=_quarantined(owner),
            replayed=replayed,
            lacks=lacks(runs, rows),
        )


def _kill_all(
    stack: KilledStack, kills: Mapping[str, int], killed: Counter[str], dice: random.Random
) -> None:
    """In rounds, each with every part that is still to be killed, in an order of its own.

    After a few deaths in a row the supervisor waits longer and longer, so from then on a part is
    left to be steady first.
    """
    times: Counter[str] = Counter()
    back_at: dict[str, float] = {}
    while left := [kind for kind, count in kills.items() if killed[kind] < count]:
        for kind in dice.sample(left, len(left)):
            name = dice.choice(KINDS[kind])
            time.sleep(dice.uniform(*PAUSE_SECONDS))
            if times[name] > _QUICK_DEATHS:
                time.sleep(max(0.0, back_at[name] + STEADY_SECONDS + 1 - time.monotonic()))
            if not stack.kill(name):
                raise AssertionError(f"{name} had no process to kill")
            killed[kind] += 1
            times[name] += 1
            stack.wait_for_next(name)
            back_at[name] = time.monotonic()


def wait_until_shipped(home: Path) -> None:
    """The living shipper has nothing left to do."""
    started = time.time()

    def is_quiet() -> bool:
        health = health_read(home / "journal")
        return (
            health is not None
            and health.at > started + 1
            and health.unshipped_bytes == 0
            and not health.database_error
        )

    wait_until(is_quiet, what="an empty journal", seconds=120)


def booked(owner_url: str) -> dict[str, Row]:
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        found = owner.execute(
            "SELECT event_id, completeness, billable, input_tokens, cached_input_tokens,"
            " output_tokens FROM usage_event"
        ).fetchall()
    rows = {row[0]: Row(*row) for row in found}
    if len(rows) != len(found):
        raise AssertionError("an event is there twice")
    return rows


def _tokens_off(runs: dict[str, list[Run]], rows: Mapping[str, Row]) -> int:
    """Of all answers that an engine finished, output booked too little or too much; calls that a
    killed gateway took with it are estimated, and judged by their seconds.
    """
    off = 0
    for request, each in runs.items():
        row = rows.get(request)
        if row is None:
            off += each[-1].most
        elif row.completeness == "final" and row.billable:
            off += min(abs(run.most - row.output) for run in each)
    return off


def _quarantined(owner_url: str) -> int:
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        row = owner.execute("SELECT count(*) FROM usage_quarantine").fetchone()
    return int(row[0]) if row else -1
