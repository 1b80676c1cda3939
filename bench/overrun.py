"""What a prepaid balance is overrun by: a thousand calls at once over four gateway processes.

``python -m bench overrun``: PostgreSQL, Valkey, gateways and shipper are real, the engine is
simulated. The second half runs with Redis emptied in the middle.
"""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import LiteralString
from urllib.parse import urlsplit

import psycopg
import redis

from .backing import ROOT, Backing, backing
from .engines import Simulator, adapter_write, simulator
from .gateways import gateways, publish
from .processes import wait_until
from .results import Row

MODEL = "prepaid"
PROCESSES = 4
MAX_TOKENS = 40
CALL_NANO = 40 * 400  # what the answer of a call costs; its prompt costs little more
TRIES = 6
EMPTIED_AFTER = 0.3  # of the calls that the balance pays for
AGAIN_SECONDS = 60.0
SETTLING_SECONDS = 0.2  # calls that were let in before may end until then


@dataclass
class Crowd:
    """Everybody asks until they are refused ``TRIES`` times in a row, or told to stop."""

    address: str
    key: str
    seen: Counter[str] = field(default_factory=Counter)
    served_at: list[float] = field(default_factory=list)

    async def ask_all(self, callers: int) -> None:
        await asyncio.gather(*(self._ask_on() for _ in range(callers)))

    async def _ask_on(self) -> None:
        refused = 0
        while refused < TRIES:
            outcome = await self._ask()
            self.seen[outcome] += 1
            if outcome == "200":
                self.served_at.append(time.monotonic())
            refused = refused + 1 if outcome == "429" else 0
            await asyncio.sleep(0 if outcome == "200" else random.uniform(0.1, 0.5))

    async def _ask(self) -> str:
        """The status of one call on a connection of its own."""
        at = urlsplit(self.address)
        content = {"role": "user", "content": "Hello"}
        body = json.dumps({"model": MODEL, "messages": [content], "max_tokens": MAX_TOKENS})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n"
            f"content-type: application/json\r\nauthorization: Bearer {self.key}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        try:
            reader, writer = await asyncio.open_connection(at.hostname, at.port)
            writer.write((head + body).encode())
            answer = await reader.read()
            writer.close()
        except OSError:
            return "cut"
        return answer[9:12].decode() or "cut"


def measure(*, short: bool) -> list[Row]:
    callers, paid = (100, 60) if short else (1000, 500)
    with tempfile.TemporaryDirectory(prefix="tessera-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        back = stack.enter_context(backing(folder))
        key = back.secret("TESSERA_ENGINE_KEY")
        engine = stack.enter_context(simulator(folder / "engine", replica="r1", engine_key=key))
        engine.load(MODEL, adapter_write(folder / "adapter", seed=0))
        shipping = subprocess.Popen(
            [sys.executable, "-m", "serving.journal.shipper"],
            cwd=ROOT,
            env=back.environment,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(shipping.wait, 20)
        stack.callback(shipping.terminate)
        pay_first(back)
        with gateways_of(back, engine) as address:
            rows = [again_row(gap) for gap in _crowds(back, engine, address, callers, paid)]
        wait_until(lambda: _open_journals(back) == 0, what="closed journals", seconds=60)
        return [*overrun_rows(*_booked(back), callers), *rows]


@contextmanager
def gateways_of(back: Backing, engine: Simulator) -> Iterator[str]:
    publish(back, [engine], models=[MODEL], slots=256)
    with gateways(back, processes=PROCESSES) as made:
        yield made.address


def _crowds(
    back: Backing, engine: Simulator, address: str, callers: int, paid: int
) -> Iterator[float]:
    """A crowd in peace, and one that loses Redis; seconds until it was served again."""

    def empty_redis() -> None:
        with redis.Redis.from_url(back.environment["REDIS_URL"]) as server:
            server.flushall()
        publish(back, [engine], models=[MODEL], slots=256)

    for disturb in (None, empty_redis):
        crowd = Crowd(address, back.tenant.key)
        credit(back, paid * CALL_NANO, operation=str(disturb is None))
        gap = asyncio.run(_run(crowd, callers, int(EMPTIED_AFTER * paid), disturb))
        print(f"    {dict(crowd.seen)}", flush=True)
        if disturb is not None:
            yield gap


async def _run(crowd: Crowd, callers: int, calls: int, disturb: Callable[[], None] | None) -> float:
    """Ask until nobody is served; how long nobody was, after the disturbance."""
    asking = asyncio.create_task(crowd.ask_all(callers))
    if disturb is not None:
        while crowd.seen["200"] < calls and not asking.done():  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.01)
        await asyncio.to_thread(disturb)
        disturbed_at, served = time.monotonic(), crowd.seen["200"]
    await asking
    if disturb is None:
        return 0.0
    again = [at for at in crowd.served_at[served:] if at > disturbed_at + SETTLING_SECONDS]
    return min(again, default=disturbed_at + 2 * AGAIN_SECONDS) - disturbed_at


def again_row(gap: float) -> Row:
    return Row(
        name="prepaid serves again after Redis was emptied",
        unit="s",
        value=gap,
        target=AGAIN_SECONDS,
    )


def pay_first(back: Backing) -> None:
    with _as_owner(back) as owner:
        owner.execute("UPDATE tenants_organization SET billing = 'prepaid', version = version + 1")


def credit(back: Backing, nano: int, *, operation: str) -> None:
    with _as_owner(back) as owner:
        owner.execute(
            "INSERT INTO balance_entry (organization_id, nano, reason, actor, operation)"
            " VALUES (%s, %s, 'bench', 'bench', %s)",
            (back.tenant.organization, nano, operation),
        )


def _as_owner(back: Backing) -> psycopg.Connection:
    """In the platform's scope, as migrations are; a benchmark's own database."""
    return psycopg.connect(
        back.environment["TESSERA_DATABASE_OWNER_URL"], options="-c app.platform=on"
    )


def _open_journals(back: Backing) -> int:
    return _number(
        back,
        "SELECT count(*) FROM gateway_roster r LEFT JOIN journal_position p USING (writer)"
        " WHERE p.closed_at IS NULL",
    )


def _booked(back: Backing) -> tuple[int, int]:
    """What was given, and what usage came to: in nano-USD."""
    given = _number(back, "SELECT sum(nano) FROM balance_entry")
    return given, _number(back, "SELECT coalesce(sum(cost_nano), 0) FROM usage_event")


def _number(back: Backing, query: LiteralString) -> int:
    with _as_owner(back) as owner:
        row = owner.execute(query).fetchone()
    return int(row[0]) if row else 0


def overrun_rows(given: int, spent: int, callers: int) -> list[Row]:
    return [
        Row(
            name=f"prepaid balance overrun, {callers} callers, {PROCESSES} processes",
            unit="nano-USD",
            value=float(max(0, spent - given)),
            target=0.0,
        ),
        Row(
            name="prepaid balance spent when nobody is let in any more",
            unit="%",
            value=100.0 * spent / given,
        ),
    ]
