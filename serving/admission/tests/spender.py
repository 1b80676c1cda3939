"""A gateway process that only spends: many calls at once until the account has nothing left.

``python -m serving.admission.tests.spender <redis url> <ledger file> <writer> <calls at once>``.
Every settled cost is a line of its journal (standard output) before admission hears of it, as the
gateway does it.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.admission.ledger import Base, LedgerUnavailable, Roster
from serving.admission.tests.parts import (
    StandInLedger,
    prepaid,
    request,
    started,
    used,
)
from serving.admission.values import Grant, Reason, Refusal

INPUT_NANO, OUTPUT_NANO = 1_000, 2_000
INPUT, OUTPUT = 10, 20
LEAST = INPUT * INPUT_NANO + OUTPUT_NANO  # what the smallest call needs


class FileLedger(StandInLedger):
    """Reads what the test wrote; one file stands in for PostgreSQL."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    async def base(self, account: str, announced: Sequence[str]) -> Base:
        self._read()
        return await super().base(account, announced)

    async def roster(self, silent: Sequence[str] = ()) -> Roster:
        self._read()
        return await super().roster(silent)

    def _read(self) -> None:
        try:
            found = json.loads(self._path.read_bytes())
        except ValueError as error:
            raise LedgerUnavailable from error
        self.credits, self.living = found["credits"], found["living"]
        self.closed = found["closed"]


async def spend(url: str, ledger: FileLedger, writer: str, at_once: int) -> None:
    ledger._read()
    process = await started(url, writer, ledger=ledger, processes=4, timeout_seconds=1.0)
    chance = random.Random(writer)
    numbers = iter(range(10**9))

    async def one() -> bool:
        """Whether there may be more."""
        call = request(
            f"{writer}-{next(numbers)}",
            slots=10_000,
            subjects=prepaid(),
            price=(INPUT_NANO, OUTPUT_NANO),
        )
        answer = await process.admission.admit(call)
        if isinstance(answer, Refusal):
            if answer.reason is Reason.INSUFFICIENT_BALANCE:
                return False
            await asyncio.sleep(chance.random() * answer.retry_after_seconds)
            return True
        assert isinstance(answer, Grant)
        await asyncio.sleep(chance.random() * 0.05)
        output = chance.randint(1, answer.output_tokens)
        cost = INPUT * INPUT_NANO + output * OUTPUT_NANO
        print(cost, flush=True)
        process.admission.settle(answer, used(INPUT, output, cost_nano=cost))
        return True

    async def many() -> None:
        while await one():
            pass

    await asyncio.gather(*(many() for _ in range(at_once)))
    await many()
    await process.admission.flush()
    print("done", flush=True)
    await asyncio.sleep(600)  # it lives on, and announces itself, until it is told to go


if __name__ == "__main__":
    url, path, writer, at_once = sys.argv[1:]
    asyncio.run(spend(url, FileLedger(Path(path)), writer, int(at_once)))
