"""F18: an engine's stream that ends or is damaged at any byte. A client gets whole events or none."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from serving.gateway.answers import StreamAnswer
from serving.gateway.connection import Cut, EngineConnection, Garbage, Pulse, UpstreamError
from serving.gateway.reply import Reply
from serving.gateway.stream import EventFilter, Meter

WORDS = ("Caf\\u00e9 ", "na\u00efve ", 'a \\"quote\\" ', "{braces} ", "end")
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def event(word: str, count: int) -> bytes:
    finish = '"stop"' if word == "end" else "null"
    return (
        'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"adapter",'
        f'"choices":[{{"index":0,"delta":{{"content":"{word}"}},"logprobs":null,'
        f'"finish_reason":{finish},"token_ids":null}}],"usage":{{"prompt_tokens":9,'
        f'"total_tokens":{9 + count},"completion_tokens":{count}}}}}\n\n'
    ).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


EVENTS = [event(word, number) for number, word in enumerate(WORDS, 1)] + [b"data: [DONE]\n\n"]
RAW = HEAD + b"".join(map(chunk, EVENTS)) + b"0\r\n\r\n"
TEXT = "".join(json.loads(f'"{word}"') for word in WORDS)


@dataclass
class Wire:
    """Takes what goes to the client; in the place of a connection and of its transport."""

    written: bytes = b""
    is_draining: bool = False
    date: bytes = b""

    def __post_init__(self) -> None:
        self.transport: Any = self

    def write(self, data: bytes) -> None:
        self.written += data

    def answered(self, *, keep_alive: bool) -> None:
        """Nothing follows."""

    def body(self) -> bytes:
        """What the client has got of the answer's body."""
        _, _, rest = self.written.partition(b"\r\n\r\n")
        data = b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            data, rest = data + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return data


@dataclass
class Engine:
    """A connection to an engine, fed by hand, and what came of its answer."""

    wire: Wire = field(default_factory=Wire)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.meter = Meter(choices_per_prompt=1)
        events = EventFilter(
            engine_name="adapter", name="model", wants_usage=False, meter=self.meter
        )
        reply = Reply(self.wire, keep_alive=True)
        self.answer = StreamAnswer(reply, events, on_start=lambda: None)
        self.connection = EngineConnection("i", set(), Pulse(), loop)
        self.connection.connection_made(_Transport())
        self.connection.send(b"", self.answer, is_stream=True, first_seconds=1, idle_seconds=1)

    def says(self, data: bytes, *, by: int) -> None:
        for start in range(0, len(data), by):
            self.connection.data_received(data[start : start + by])

    def ended_with(self, error: Exception | None = None) -> BaseException | None:
        self.connection.connection_lost(error)
        assert self.answer.finished.done(), "nothing is silent"
        return self.answer.finished.exception()

    def events(self) -> list[dict[str, Any]]:
        """What the client has, every event of it whole."""
        *whole, rest = self.wire.body().split(b"\n\n")
        assert rest == b"", "a part of an event went out"
        return [json.loads(one.removeprefix(b"data: ").decode()) for one in whole]

    def heard(self) -> str:
        return "".join(one["choices"][0]["delta"]["content"] for one in self.events())


class _Transport(asyncio.Transport):
    def write(self, data: Any) -> None:
        """To an engine that does not listen."""

    def abort(self) -> None:
        """It is as good as gone."""


@pytest.mark.parametrize("by", [1, 7, 100_000])
async def test_an_undamaged_stream_is_whole_however_it_is_cut_into_pieces(by: int) -> None:
    engine = Engine()
    engine.says(RAW, by=by)
    assert engine.ended_with() is None
    assert engine.heard() == TEXT
    assert engine.meter.quantities() == {"input": 9, "cached_input": 0, "output": 5}


@pytest.mark.parametrize("error", [None, ConnectionResetError("RST")], ids=["FIN", "RST"])
async def test_a_stream_that_ends_at_any_byte_leaves_whole_events_and_an_error(
    error: Exception | None,
) -> None:
    done_at = RAW.index(b"[DONE]\n\n") + len(b"[DONE]\n\n")
    for size in range(len(RAW)):
        engine = Engine()
        engine.says(RAW[:size], by=100_000)
        assert (engine.ended_with(error) is None) == (size >= done_at), size
        assert TEXT.startswith(engine.heard())
        events = RAW[:size].count(b"}\n\n")
        assert engine.meter.quantities()["output"] == events, "what went out is what is counted"


@pytest.mark.parametrize("damage", [b"\xff", b"\x00", b'"', b"}", b"\n", b"7"])
async def test_a_stream_damaged_at_any_byte_never_gives_the_client_broken_json(
    damage: bytes,
) -> None:
    for at in range(len(RAW)):
        engine = Engine()
        engine.says(RAW[:at] + damage + RAW[at + 1 :], by=100_000)
        ended = engine.ended_with()
        assert ended is None or isinstance(ended, UpstreamError), at
        engine.events()


async def test_an_end_without_done_is_a_cut_and_garbage_is_named() -> None:
    engine = Engine()
    engine.says(HEAD + chunk(EVENTS[0]) + b"0\r\n\r\n", by=100_000)
    assert isinstance(engine.ended_with(), Cut)
    engine = Engine()
    engine.says(HEAD + chunk(b'data: {"id":\n\n'), by=100_000)
    assert isinstance(engine.ended_with(), Garbage)
    assert engine.wire.written == b"", "before the first event there is no status line"
