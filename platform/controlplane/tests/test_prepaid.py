"""Prepaid money from the operator's credit to the last token it pays for, with everything real:
PostgreSQL, Valkey, gateway processes, the shipper. Only the engine is simulated.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest
from pytest_django import Settings

from billing.selectors import balance_of
from billing.services import balance_credit
from kernel.usage import cost_nano
from serving.gateway.tests import raw
from serving.gateway.tests.stack import PRICE, Servers, Stack, Tenant, stack, until
from supervisor.valkey import THROWAWAY, ValkeyServer
from tenants.models import Billing, Organization
from tenants.scope import organization_scope
from tenants.services import billing_set, quota_set
from tenants.tests.factories import SYSTEM, make_key, make_organization

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(300)]

GATEWAYS = 2
CALLERS = 12
MAX_TOKENS = 40
CREDIT_NANO = 4_000_000
AGAIN_SECONDS = 60.0
PATIENCE_SECONDS = 90.0
RATES = {"input": PRICE.input, "cached_input": PRICE.cached_input, "output": PRICE.output}


class Redis:
    """A server that can be restarted, and comes back empty."""

    def __init__(self, folder: Path) -> None:
        self._server = ValkeyServer(folder, settings=THROWAWAY)
        self._running = ExitStack()
        self.url = ""

    def start(self) -> None:
        self.url = self._running.enter_context(self._server.running()).redis

    def stop(self) -> None:
        self._running.close()


@dataclass
class House:
    """One prepaid organization, its gateways, and what its callers saw."""

    stack: Stack
    redis: Redis
    organization: Organization
    key: str
    seen: Counter[str] = field(default_factory=Counter)
    served_at: list[float] = field(default_factory=list)

    def credit(self, nano: int, operation: str) -> None:
        balance_credit(
            self.organization.id, caller=SYSTEM, nano=nano, reason="test", operation=operation
        )

    def ask(self) -> str:
        """What became of one call: its status, or the refusal's code."""
        body = {
            "model": "support",
            "messages": [{"role": "user", "content": f"Hello {time.monotonic_ns()}"}],
            "max_tokens": MAX_TOKENS,
        }
        try:
            answer = raw.ask(
                self.stack.port, raw.request("/v1/chat/completions", body, key=self.key)
            )
            outcome = "served" if answer.status == 200 else answer.code
        except (OSError, ValueError, IndexError):
            outcome = "cut"  # its gateway was killed
        self.seen[outcome] += 1
        if outcome == "served":
            self.served_at.append(time.monotonic())
        return outcome

    def spend_everything(self, stop: threading.Event) -> None:
        """Ask until the balance does not cover a call, several times in a row."""
        refused = 0
        while refused < 5 and not stop.is_set():
            outcome = self.ask()
            refused = refused + 1 if outcome == "insufficient_balance" else 0
            if outcome not in {"served", "insufficient_balance"}:
                time.sleep(0.05)

    def settled(self) -> None:
        """Stop the gateways and wait until the shipper has closed all of their journals."""
        for process in self.stack.gateways:
            process.terminate()
        for process in self.stack.gateways:
            process.wait(40)
        with as_owner() as owner:
            until(lambda: _open_journals(owner) == 0, seconds=40, what="closed journals")


@contextmanager
def as_owner() -> Iterator[psycopg.Connection]:
    with psycopg.connect(os.environ["TESSERA_DATABASE_OWNER_URL"], autocommit=True) as owner:
        owner.execute("SET app.platform = 'on'")
        yield owner


def _open_journals(owner: psycopg.Connection) -> int:
    row = owner.execute(
        "SELECT count(*) FROM gateway_roster r LEFT JOIN journal_position p USING (writer)"
        " WHERE p.closed_at IS NULL"
    ).fetchone()
    return int(row[0]) if row else 0


def _sum(owner: psycopg.Connection, expression: str, table: str) -> int:
    row = owner.execute(f"SELECT coalesce(sum({expression}), 0) FROM {table}").fetchone()
    return int(row[0]) if row else 0


@contextmanager
def shipper(home: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "serving.journal.shipper"],
        env={**os.environ, "TESSERA_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def house(redis_url: str, settings: Settings) -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="tessera-") as name, ExitStack() as running:
        folder = Path(name)
        redis = Redis(folder / "valkey")
        redis.start()
        running.callback(redis.stop)
        servers = Servers(
            folder=folder,
            database_owner=os.environ["TESSERA_DATABASE_OWNER_URL"],
            database_gateway=os.environ["TESSERA_DATABASE_GATEWAY_URL"],
            redis_url=redis.url,
        )
        made = running.enter_context(stack(servers, folder))
        running.enter_context(shipper(folder))
        organization = make_organization("acme")
        billing_set(organization.id, caller=SYSTEM, billing=Billing.PREPAID)
        limits = {
            "requests_per_minute": 10**6,
            "tokens_per_minute": 10**9,
            "concurrency": 10**4,
        }
        quota_set(organization.id, caller=SYSTEM, limits=limits)
        key = make_key(organization)
        made.tenants.append(
            Tenant(str(organization.id), str(key.key.project_id), "", "", ("support",))
        )
        made.engine("--token-ms", "1", "--tokens", str(MAX_TOKENS))
        made.serve(GATEWAYS, TESSERA_KEY_PEPPER=settings.TESSERA_KEY_PEPPER)
        yield House(made, redis, organization, key.secret)


def run_dry(house: House, *disturbances: Callable[[], None]) -> None:
    """All callers until nothing is left; each disturbance once some more calls were served."""
    stop = threading.Event()
    with ThreadPoolExecutor(CALLERS) as threads:
        callers = [threads.submit(house.spend_everything, stop) for _ in range(CALLERS)]
        try:
            for disturb in disturbances:
                _until_served(house, house.seen["served"] + 15)
                disturb()
            until(
                lambda: all(caller.done() for caller in callers),
                seconds=PATIENCE_SECONDS,
                what=f"an empty balance: {house.seen}",
            )
        finally:
            stop.set()
    for caller in callers:
        caller.result()


def _until_served(house: House, calls: int) -> None:
    until(
        lambda: house.seen["served"] >= calls,
        seconds=AGAIN_SECONDS,
        what=f"prepaid calls again: {house.seen}",
    )


def booked(house: House) -> int:
    """The ledger agrees with itself; what it comes to, in nano-USD."""
    account = f"org:{house.organization.id}"
    with as_owner() as owner:
        events = _sum(owner, "cost_nano", "usage_event")
        assert _sum(owner, "nano", f"writer_spend WHERE account = '{account}'") == events
        assert _sum(owner, "1", "usage_quarantine") == 0
    with organization_scope(house.organization.id):
        assert balance_of(house.organization.id).spent_nano == events
    return events


def computed(house: House) -> int:
    """What the engine's own journal comes to at the price, over the calls that it finished."""
    begun = {
        (line["process"], line["number"]): line for line in house.stack.engines[0].lines("begin")
    }
    return sum(
        cost_nano(
            {
                "input": begun[place].get("prompt_tokens", 0),
                "cached_input": begun[place].get("cached_tokens", 0),
                "output": line.get("tokens", 0),
            },
            RATES,
        )
        for line in house.stack.engines[0].lines("end")
        if line.get("ended") == "finished" and (place := (line["process"], line["number"]))
    )


def least_hold() -> int:
    """More than any call that could not start would have held."""
    return 1000 * PRICE.input + MAX_TOKENS * PRICE.output


def test_parallel_calls_spend_a_balance_to_its_end_and_not_beyond(house: House) -> None:
    assert house.ask() == "insufficient_balance"
    house.credit(CREDIT_NANO, "first")
    until(lambda: house.ask() == "served", seconds=AGAIN_SECONDS, what="the credit")
    run_dry(house)
    house.settled()
    spent = booked(house)
    assert spent == computed(house), "every token that was computed is paid for, once"
    assert 0 <= CREDIT_NANO - spent <= least_hold(), f"overrun or stuck: {house.seen}"
    assert set(house.seen) <= {"served", "insufficient_balance", "balance_unavailable"}


def test_the_end_is_the_same_when_everything_is_killed_on_the_way(
    house: House, settings: Settings
) -> None:
    house.credit(CREDIT_NANO, "first")

    def flush_redis() -> None:
        with house.stack.servers.client() as client:
            client.flushall()
        house.stack.publish()

    def kill_gateway() -> None:
        house.stack.gateways[0].kill()
        house.stack.gateways[0].wait(10)
        house.stack.start(0, TESSERA_KEY_PEPPER=settings.TESSERA_KEY_PEPPER)

    def restart_redis() -> None:
        house.redis.stop()
        house.redis.start()
        house.stack.publish()

    run_dry(house, flush_redis, kill_gateway, restart_redis)
    house.settled()
    spent = booked(house)
    assert spent <= CREDIT_NANO, f"overrun: {house.seen}"
    assert CREDIT_NANO - spent <= least_hold(), f"something is still held: {house.seen}"
    assert spent >= computed(house) - CALLERS * least_hold()
