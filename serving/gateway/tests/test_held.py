"""Answers whose last byte waits for the disk."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from serving.gateway.access import Line
from serving.gateway.errors import Busy
from serving.gateway.fields import Wanted
from serving.gateway.held import HeldReply, Strict
from serving.gateway.reply import EVENTS, Reply
from serving.gateway.tests import raw
from serving.gateway.tests.journals import facts
from serving.gateway.tests.stack import Stack
from serving.gateway.who import Known
from serving.journal.writer import JournalFull

KNOWN, WANTED = cast("Known", None), cast("Wanted", None)


@dataclass
class Wire:
    """What left, in order."""

    sent: list[bytes] = field(default_factory=list)
    date: bytes = b""
    is_draining: bool = False
    is_answered: bool = False
    transport: Any = None

    def __post_init__(self) -> None:
        self.transport = self

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def answered(self, *, keep_alive: bool) -> None:
        self.is_answered = True

    @property
    def text(self) -> bytes:
        return b"".join(self.sent)


@dataclass
class Disk:
    """Says when the settle is durable, or that it never will be."""

    wire: Wire
    fails: bool = False
    before: bytes | None = None

    async def durable(self) -> None:
        self.before = self.wire.text
        await asyncio.sleep(0)
        if self.fails:
            raise JournalFull(rule="journal_disk")


async def plain(known: Known, wanted: Wanted, reply: Reply, line: Line) -> None:
    reply.send(200, b"answer", extra=b"x-limit: 1\r\n")


async def streamed(known: Known, wanted: Wanted, reply: Reply, line: Line) -> None:
    reply.start(200, content_type=EVENTS)
    reply.write(b"data: 1\n\n")
    reply.finish(b"data: [DONE]\n\n")


async def refused(known: Known, wanted: Wanted, reply: Reply, line: Line) -> None:
    raise Busy("later", code="pool_full")


def line() -> Line:
    return Line(request_id="req_1", method="POST", path="/", peer="", at=0.0)


async def ask(infer: Any, disk: Disk) -> Line:
    said = line()
    await Strict(infer, durable=disk.durable).infer(
        KNOWN, WANTED, Reply(disk.wire, keep_alive=True), said
    )
    return said


async def test_a_plain_answer_waits_whole_and_leaves_as_it_was() -> None:
    disk = Disk(Wire())
    await ask(plain, disk)
    assert disk.before == b""
    assert disk.wire.text.endswith(b"x-limit: 1\r\ncontent-length: 6\r\n\r\nanswer")
    assert disk.wire.is_answered


async def test_a_stream_flows_and_only_its_end_waits() -> None:
    disk = Disk(Wire())
    await ask(streamed, disk)
    assert disk.before is not None
    assert disk.before.endswith(b"data: 1\n\n\r\n")
    assert disk.wire.text.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


async def test_a_refusal_waits_too() -> None:
    disk = Disk(Wire())
    with pytest.raises(Busy):
        await ask(refused, disk)
    assert disk.before == b""


async def test_a_disk_that_fails_is_an_error_and_never_silent() -> None:
    disk = Disk(Wire(), fails=True)
    with pytest.raises(JournalFull):
        await ask(plain, disk)
    assert disk.wire.text == b""
    disk = Disk(Wire(), fails=True)
    said = await ask(streamed, disk)
    assert b"[DONE]" not in disk.wire.text
    assert b'"code":"journal_full"' in disk.wire.text
    assert disk.wire.text.endswith(b"0\r\n\r\n")
    assert said.code == "journal_full"


def test_what_a_held_reply_shows_is_what_its_users_need() -> None:
    inner = Reply(Wire(), keep_alive=True)
    held = HeldReply(inner)
    seen = [held.has_started]
    held.extra = b"x: 1\r\n"
    held.send(200, b"{}")
    seen += [held.has_started, inner.has_started]
    assert seen == [False, True, False]
    held.release()
    assert inner.is_finished
    assert inner.extra == b"x: 1\r\n"


def test_a_gateway_in_strict_mode_answers_the_same(bare: Stack) -> None:
    tenant = bare.tenant("support")
    bare.engine()
    bare.serve(TESSERA_JOURNAL_SYNC="strict")
    body = {"model": "support", "prompt": "x", "max_tokens": 3, "ignore_eos": True}
    answer = raw.ask(bare.port, raw.request("/v1/completions", body, key=tenant.key))
    assert answer.status == 200
    assert len(facts(bare.home)) == 1, "written before the answer came"
    stream = raw.ask(
        bare.port, raw.request("/v1/completions", {**body, "stream": True}, key=tenant.key)
    )
    assert stream.body.endswith(b"data: [DONE]\n\n")
    assert [fact.completeness for fact in facts(bare.home)] == ["final", "final"]
