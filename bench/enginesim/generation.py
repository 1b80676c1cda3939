"""One request on the engine, from its first token to whatever ends it.

Times are kept from the start, not from token to token, so a busy loop does not slow an answer down.
A stream sends its headers at once, as vLLM does, and the first event with the first token.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass

from .answers import Answer, answer
from .asks import Ask
from .faults import Fault
from .http import Connection
from .journal import Ended
from .shapes import DONE, Stream, error_body, plain, plain_usage

_PUMP_BYTES = 65_536
_STEP_FAILED = "EngineCore encountered an issue. See stack trace (above) for the root cause."


@dataclass(frozen=True, slots=True)
class Pace:
    first_token_seconds: float
    token_seconds: float

    def due(self, index: int) -> float:
        """When token ``index`` is out, in seconds after the start."""
        return self.first_token_seconds + index * self.token_seconds

    def out(self, elapsed: float) -> int:
        """How many tokens are out after so long."""
        if elapsed < self.first_token_seconds:
            return 0
        if not self.token_seconds:
            return 1 << 30
        return 1 + int((elapsed - self.first_token_seconds) / self.token_seconds)


class Generation:
    """Mutable state: how many tokens of each choice are out, the next timer, the fault still to
    come.
    """

    def __init__(  # noqa: PLR0913 - everything that one answer depends on
        self,
        ask: Ask,
        reply: Connection,
        *,
        request_id: str,
        model: str,
        fingerprint: bytes,
        cached: int | None,
        pace: Pace,
        fault: Fault | None,
        uncached: int,
        on_token: Callable[[Generation], None],
        on_end: Callable[[Generation, Ended, str], None],
    ) -> None:
        self.ask = ask
        self.model = model
        self.uncached = uncached
        self.out = 0
        self.submitted = self.started = self.first_token_at = asyncio.get_running_loop().time()
        self._reply = reply
        self._request_id = request_id
        self._cached = cached
        self._pace = pace
        self._fault = fault
        self._on_token = on_token
        self._on_end = on_end
        self._timer: asyncio.Handle | None = None
        self._answers = _answers(ask, fingerprint)
        self._events = Stream(ask, request_id=request_id, model=model)
        self._events.stamps = fault is not None and fault.stamps

    @property
    def tokens(self) -> int:
        """Generated so far, over all choices."""
        return self.out * len(self._answers)

    def elapsed(self) -> float:
        """Seconds since the request came in."""
        return asyncio.get_running_loop().time() - self.submitted

    def start(self, *, after_seconds: float) -> None:
        """Called when the engine has room; the clock of the answer starts when its prompt is
        computed, ``after_seconds`` from now.
        """
        loop = asyncio.get_running_loop()
        self.started = loop.time() + after_seconds
        if self.ask.stream:
            self._at(0, self._step)
        else:
            self._at(self._interruption() - 1, self._finish_plain)

    def abandoned(self) -> None:
        if not self.ask.stream:
            elapsed = asyncio.get_running_loop().time() - self.started
            self.out = min(self._pace.out(elapsed), self.ask.tokens)
        self._end("aborted", "abort")

    def _interruption(self) -> int:
        """The token before which a fault happens, or the last one."""
        return self.ask.tokens if self._fault is None else self._fault.at_tokens

    def _at(self, index: int, action: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        due = self.started + self._pace.due(max(index, 0))
        if due <= loop.time():
            self._timer = loop.call_soon(action)
        else:
            self._timer = loop.call_at(due, action)

    # Streams

    def _step(self) -> None:
        if self._fault is not None and self.out >= self._fault.at_tokens:
            fault, self._fault = self._fault, None
            if _IN_STREAM[fault.kind](self):
                return
        if not self._reply.writable:
            self._at(self.out, self._step)
            return
        if self.out == 0:
            self._send_first()
        self._send_token()
        if self.out == self.ask.tokens:
            self._finish_stream()
        else:
            self._at(self.out, self._step)

    def _send_first(self) -> None:
        self.first_token_at = asyncio.get_running_loop().time()
        if self.ask.is_chat:
            for choice in range(len(self._answers)):
                self._reply.send_chunk(self._events.first(choice))

    def _send_token(self) -> None:
        index = self.out
        self.out += 1
        self._on_token(self)
        finish = self.ask.finish_reason if self.out == self.ask.tokens else None
        for choice, words in enumerate(self._answers):
            self._reply.send_chunk(self._events.token(choice, index, words, finish=finish))

    def _finish_stream(self) -> None:
        if self.ask.include_usage:
            self._reply.send_chunk(self._events.last(self.tokens, cached=self._cached))
        self._reply.send_chunk(DONE)
        self._end("finished", self.ask.finish_reason)
        self._reply.end_stream()

    # Plain answers

    def _finish_plain(self) -> None:
        if self._fault is not None:
            fault, self._fault = self._fault, None
            self.out = min(fault.at_tokens, self.ask.tokens)
            if _IN_PLAIN[fault.kind](self):
                return
            self._at(self.ask.tokens - 1, self._finish_plain)
            return
        self.first_token_at = self.started + self._pace.first_token_seconds
        self.out = self.ask.tokens
        self._on_token(self)
        usage = plain_usage(self.ask, self._events.told(self.tokens), cached=self._cached)
        body = plain(
            self.ask, self._answers, request_id=self._request_id, model=self.model, usage=usage
        )
        self._end("finished", self.ask.finish_reason)
        self._reply.send(200, body)

    # Faults: each says whether the answer is over

    def _crash(self) -> bool:
        os._exit(1)

    def _stall(self) -> bool:
        return True

    def _cut(self) -> bool:
        self._end("broken", "cut")
        self._reply.cut()
        return True

    def _slow(self) -> bool:
        return False

    def _negative_usage(self) -> bool:
        self._events.negative = True
        return False

    def _garbage_event(self) -> bool:
        self._reply.send_chunk(b'data: {"id":"chatcmpl-\xff","choices":[{]\n\n')
        return False

    def _garbage_body(self) -> bool:
        self._end("broken", "garbage")
        self._reply.send(200, b'{"id":"chatcmpl-\xff","choices":[{]')
        return True

    def _error_event(self) -> bool:
        self._reply.send_chunk(self._events.error(_STEP_FAILED))
        self._reply.send_chunk(DONE)
        self._end("broken", "stream_error")
        self._reply.end_stream()
        return True

    def _error_body(self) -> bool:
        self._end("broken", "stream_error")
        self._reply.send(500, error_body(_STEP_FAILED, kind="InternalServerError", status=500))
        return True

    def _endless_line(self) -> bool:
        self._reply.send_chunk(b'data: {"id":"')
        self._pump()
        return True

    def _endless_body(self) -> bool:
        self._reply.start_stream()
        return self._endless_line()

    def _pump(self) -> None:
        if self._reply.writable:
            self._reply.send_chunk(b"x" * _PUMP_BYTES)
        self._timer = asyncio.get_running_loop().call_later(0.001, self._pump)

    def _end(self, ended: Ended, reason: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_end(self, ended, reason)


_IN_STREAM: dict[str, Callable[[Generation], bool]] = {
    "crash": Generation._crash,
    "stall": Generation._stall,
    "cut": Generation._cut,
    "slow": Generation._slow,
    "negative_usage": Generation._negative_usage,
    "garbage": Generation._garbage_event,
    "stream_error": Generation._error_event,
    "endless_line": Generation._endless_line,
}
_IN_PLAIN = _IN_STREAM | {
    "garbage": Generation._garbage_body,
    "stream_error": Generation._error_body,
    "endless_line": Generation._endless_body,
}


def _answers(ask: Ask, fingerprint: bytes) -> list[Answer]:
    words = ask.prescribed.words if ask.prescribed else ()
    return [
        answer(fingerprint, prompt, choice=choice, words=words)
        for prompt in ask.prompts
        for choice in range(ask.n)
    ]
