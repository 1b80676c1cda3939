"""A gateway process in miniature, to be killed: writes a journal, and into an oracle what it knows.

    python -m serving.journal.tests.killed_writer JOURNAL ORACLE SEED

Every oracle line goes to the file in one write, once before and once after the journal call that it is about.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from pathlib import Path

from kernel.ids import ulid
from kernel.usage import UsageFact
from serving.journal.tests.facts import SMALL, draft, settled
from serving.journal.writer import JournalWriter

# Open events: what was begun, and the output counted so far.
Opened = dict[str, tuple[UsageFact, int]]


class Oracle:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, *words: object) -> None:
        os.write(self._fd, json.dumps(words).encode() + b"\n")


def main(journal: Path, oracle: Oracle, dice: random.Random) -> None:
    writer = JournalWriter.open(journal, node="kill", limits=SMALL)
    syncing = threading.Thread(target=_sync_forever, args=(writer,), daemon=True)
    syncing.start()
    oracle.say("writer", writer.writer_id)
    opened: Opened = {}
    while True:
        step = dice.random()
        if len(opened) < 3 or (step < 0.3 and len(opened) < 12):
            _begin(writer, oracle, opened, dice)
        elif step < 0.7:
            _count(writer, oracle, opened, dice)
        else:
            _end(writer, oracle, opened, dice)
        if dice.random() < 0.02:
            time.sleep(0.001)


def _begin(writer: JournalWriter, oracle: Oracle, opened: Opened, dice: random.Random) -> None:
    estimate = dice.randrange(1, 1000)
    intent = draft(event_id=ulid(), quantities={"input": estimate, "cached_input": 0, "output": 0})
    oracle.say("intent?", intent.event_id, estimate)
    writer.intent(intent)
    oracle.say("intent", intent.event_id)
    opened[intent.event_id] = (intent, 0)


def _count(writer: JournalWriter, oracle: Oracle, opened: Opened, dice: random.Random) -> None:
    event_id = dice.choice(list(opened))
    intent, output = opened[event_id]
    output += dice.randrange(1, 50)
    oracle.say("count?", event_id, output)
    writer.checkpoint(event_id, {"input": 77, "output": output})
    oracle.say("count", event_id, output)
    opened[event_id] = (intent, output)


def _end(writer: JournalWriter, oracle: Oracle, opened: Opened, dice: random.Random) -> None:
    event_id = dice.choice(list(opened))
    intent, output = opened.pop(event_id)
    output += dice.randrange(1, 50)
    oracle.say("settle?", event_id, output)
    writer.settle(settled(intent, quantities={"input": 77, "cached_input": 0, "output": output}))
    oracle.say("settle", event_id, output)


def _sync_forever(writer: JournalWriter) -> None:
    while True:
        time.sleep(0.01)
        writer._sync()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Oracle(Path(sys.argv[2])), random.Random(sys.argv[3]))
