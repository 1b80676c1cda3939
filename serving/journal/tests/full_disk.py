"""Run on a small disk of its own at /mnt: fills it while requests are open, says what became of them."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

from serving.journal.tests.facts import (
    SMALL,
    draft,
    folder_of,
    open_until_refused,
    settled,
    settles_of,
)
from serving.journal.writer import JournalFull, JournalWriter

DISK = Path("/mnt")


def main() -> None:
    writer = JournalWriter.open(DISK / "journal", node="n", limits=SMALL)
    opened = [draft() for _ in range(10)]
    for intent in opened:
        writer.intent(intent)
    filler = DISK / "filler"
    _fill(filler)
    more, refusal = open_until_refused(writer)
    opened += more
    for count in range(200):
        writer.checkpoint(opened[0].event_id, {"output": count})
    for intent in opened:
        writer.settle(settled(intent))
    filler.unlink()
    print(
        json.dumps(
            {
                "refused": refusal.rule,
                "opened": len(opened),
                "checkpoints_dropped": writer.checkpoints_dropped,
                "settled": len(settles_of(folder_of(DISK / "journal", writer))),
                "after_space_is_back": _accepts_again(writer),
            }
        )
    )


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return


def _accepts_again(writer: JournalWriter) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        writer._sync()
        with suppress(JournalFull):
            writer.intent(draft())
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    main()
