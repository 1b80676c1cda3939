"""A streamed answer on its way through. Pure: the engine's bytes in, the customer's bytes out.

Every event is decoded once, for its count and to know that it is one; what the customer gets is the
engine's own text with three things changed: the engine's name of the adapter becomes the customer's
name of the model, usage goes unless it was asked for, and vLLM's empty extras go.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from serving.gateway.connection import Garbage

MAX_EVENT_BYTES = 1024 * 1024
_END = b"\n\n"
_DATA = b"data: "
_DONE = b"[DONE]"
_USAGE = b',"usage":{'
_CHOICES = b'"choices":[{"index":'
_USUAL_CHOICE = b',"token_ids":null}]'  # what most events have before their usage
_USUAL_END = b"}}\n\n"  # of the usage, of the event
_CHOICE_END = b"}]}\n\n"
_FLAT_USAGE = re.compile(rb',"usage":\{(?:"[a-z_]+":(?:[0-9]+|null),?)*\}')
EXTRAS = re.compile(rb',"(?:token_ids|prompt_token_ids|prompt_text)":null')
PLAIN_EXTRAS = re.compile(
    rb',"(?:token_ids|prompt_(?:token_ids|text|logprobs)|(?:kv|ec)_transfer_params|metrics'
    rb"|annotations|function_call"  # OpenAI leaves these out rather than empty
    rb'|(?:prompt|completion)_tokens_details)":null'
)
_LOGPROBS = b'"logprobs":{"content":'
_NO_LOGPROBS = b'"logprobs":null,"finish_reason":null'  # how most chunks of a chat end
_LOGPROBS_AS_PUBLISHED = b'"logprobs":{"refusal":null,"content":'

Count = Annotated[int, Meta(ge=0, le=2**40)]


class TokenDetails(Struct):
    cached_tokens: Count | None = None


class Usage(Struct):
    prompt_tokens: Count = 0
    completion_tokens: Count | None = 0
    prompt_tokens_details: TokenDetails | None = None


class Choice(Struct):
    index: Annotated[int, Meta(ge=0, le=100_000)] = 0
    finish_reason: str | None = None


class Chunk(Struct):
    """What we read of an event or of a whole answer; the rest is only checked to be JSON."""

    choices: list[Choice] = []
    model: str = ""
    usage: Usage | None = None
    error: Any = None


UNBOUNDED = (2**53, 2**53)


class Meter:
    """The cumulative count of one answer, over all its choices.

    vLLM counts per choice while it streams, and in total at the end; the total wins. What it counts
    beyond ``most``, the input and output tokens that were held, is not believed.
    """

    __slots__ = (
        "_most", "_per_choice", "_per_prompt", "_total", "choices_per_prompt", "finish_reason",
    )  # fmt: skip

    def __init__(self, *, choices_per_prompt: int = 1, most: tuple[int, int] = UNBOUNDED) -> None:
        self._most = most
        self.choices_per_prompt = choices_per_prompt
        self.finish_reason = ""
        self._total: Usage | None = None
        self._per_choice: dict[int, Usage] = {}
        self._per_prompt: dict[int, Usage] = {}

    @property
    def has_counts(self) -> bool:
        return self._total is not None or bool(self._per_choice)

    @property
    def has_total(self) -> bool:
        return self._total is not None

    def take(self, chunk: Chunk) -> None:
        usage = chunk.usage
        if not chunk.choices:
            self._total = usage or self._total
            return
        for choice in chunk.choices:
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
        if usage is not None:
            index = chunk.choices[0].index
            self._per_choice[index] = usage
            self._per_prompt[index // self.choices_per_prompt] = usage

    def take_whole(self, answer: Chunk) -> None:
        """A plain answer: one usage for everything."""
        self._total = answer.usage
        for choice in answer.choices:
            self.finish_reason = choice.finish_reason or self.finish_reason

    @property
    def is_beyond(self) -> bool:
        """Whether the engine counted more than was held: it is wrong, or our bound is."""
        counted, (most_input, most_output) = self._counted(), self._most
        return counted["input"] > most_input or counted["output"] > most_output

    def quantities(self) -> dict[str, int]:
        counted, (most_input, most_output) = self._counted(), self._most
        return {
            "input": min(counted["input"], most_input),
            "cached_input": min(counted["cached_input"], most_input),
            "output": min(counted["output"], most_output),
        }

    def _counted(self) -> dict[str, int]:
        if self._total is not None:
            return _quantities(self._total)
        prompts = [_quantities(usage) for usage in self._per_prompt.values()]
        return {
            "input": sum(prompt["input"] for prompt in prompts),
            "cached_input": sum(prompt["cached_input"] for prompt in prompts),
            "output": sum(usage.completion_tokens or 0 for usage in self._per_choice.values()),
        }


class EventFilter:
    """Feed it the body of an answer; it hands back what may go to the customer now.

    Mutable: the beginning of an event not yet complete, the meter, whether ``[DONE]`` came, and how
    events of this answer begin (``_head``), which is the same for all, and in whose names they go
    on (``_named_head``).
    """

    __slots__ = (
        "_engine_name",
        "_head",
        "_model",
        "_name",
        "_named_head",
        "_rest",
        "_wants_usage",
        "error",
        "events",
        "is_done",
        "meter",
    )

    def __init__(self, *, engine_name: str, name: str, wants_usage: bool, meter: Meter) -> None:
        self.meter = meter
        self.events = 0
        self.is_done = False
        self.error: Any = None
        self._engine_name = engine_name
        self._model = b'"model":' + _encode(engine_name)
        self._name = b'"model":' + _encode(name)
        self._wants_usage = wants_usage
        self._rest = b""
        self._head = self._named_head = b""

    def feed(self, data: bytes) -> bytes:
        """Raises ``Garbage`` for what no engine of ours sends; nothing of it is passed on."""
        if self._head and not self._rest and (out := self._usual(data)):
            return out
        if self._rest:
            data = self._rest + data
        *events, self._rest = data.split(_END)
        if len(self._rest) > MAX_EVENT_BYTES:
            raise Garbage("endless event")
        if len(events) == 1:
            return self._event(events[0])
        return b"".join([self._event(event) for event in events])

    def _usual(self, data: bytes) -> bytes:
        """One whole event that begins and ends like most: decoded once, and cut in two places.

        Nothing where it is anything else. What comes out is what ``_payload`` makes of it.
        """
        cut = data.rfind(_USAGE)
        if (
            cut < 0
            or not data.startswith(self._head)
            or data.find(_END) != len(data) - len(_END)
            or data.find(b"}", cut) != len(data) - len(_USUAL_END)  # flat, and the event's last
            or not data.endswith(_USUAL_CHOICE, 0, cut)
            or self.is_done
            or self.error is not None
        ):
            return b""
        chunk = decode_chunk(data[len(_DATA) : -len(_END)])
        if chunk.error is not None or not chunk.choices or chunk.model != self._engine_name:
            return b""
        self.meter.take(chunk)
        self.events += 1
        middle = data[len(self._head) : cut - len(_USUAL_CHOICE)]
        if b"_ids" in middle:
            middle = EXTRAS.sub(b"", middle)
        if not middle.endswith(_NO_LOGPROBS) and _LOGPROBS in middle:
            middle = middle.replace(_LOGPROBS, _LOGPROBS_AS_PUBLISHED)
        return b"".join((self._named_head, middle, _CHOICE_END))

    def _learn(self, payload: bytes) -> None:
        """How the events of this answer begin, up to what differs between them."""
        head = payload[: payload.find(_CHOICES) + len(_CHOICES)]
        if self._model in head:
            self._head = _DATA + head
            self._named_head = _DATA + head.replace(self._model, self._name, 1)

    def _event(self, event: bytes) -> bytes:
        if self.is_done or self.error is not None:
            return b""
        if event.startswith(_DATA):
            payload = event[6:]
            if payload == _DONE:
                self.is_done = True
                return b""
            return self._payload(payload)
        if event.startswith(b":") and b"\n" not in event:
            return event + _END if self.events else b""
        raise Garbage("not an event")

    def _payload(self, payload: bytes) -> bytes:
        chunk = decode_chunk(payload)
        if chunk.error is not None:
            self.error = chunk.error
            return b""
        if chunk.model != self._engine_name:
            raise Garbage("answered in another model's name")
        self.meter.take(chunk)
        if not chunk.choices and not self._wants_usage:
            return b""
        if chunk.choices and chunk.usage is not None:
            if not self._head:
                self._learn(payload)
            payload = without_usage(payload)
        self.events += 1
        return b"".join((_DATA, renamed(payload, self._model, self._name), _END))


def decode_chunk(payload: bytes) -> Chunk:
    """Raises ``Garbage``. Texts that are not read are passed on, so they must be UTF-8, too."""
    try:
        if not payload.isascii():
            payload.decode()
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Garbage(f"not a chunk: {error}") from error


def renamed(payload: bytes, model: bytes, name: bytes, extras: re.Pattern[bytes] = EXTRAS) -> bytes:
    """The customer's name for the engine's, members as OpenAI publishes them, no empty extras.

    Inside a JSON string every quote is escaped, so these byte strings only match real members.
    """
    if model not in payload:  # spaced otherwise than vLLM does
        payload = _compact(payload)
    payload = payload.replace(model, name, 1)
    if _LOGPROBS in payload:
        payload = payload.replace(_LOGPROBS, _LOGPROBS_AS_PUBLISHED)
    return extras.sub(b"", payload) if b":null" in payload else payload


def without_usage(payload: bytes) -> bytes:
    """Cut the member ``usage``, which vLLM writes flat and near the end, out of a chunk's text."""
    start = payload.rfind(_USAGE)
    found = _FLAT_USAGE.match(payload, start) if start > 0 else None
    if found is not None:
        return payload[:start] + payload[found.end() :]
    members = msgspec.json.decode(payload)
    members.pop("usage", None)
    return _encode(members)


_decode = msgspec.json.Decoder(Chunk).decode
_encode = msgspec.json.Encoder().encode


def _compact(payload: bytes) -> bytes:
    return _encode(msgspec.json.decode(payload))


def _quantities(usage: Usage) -> dict[str, int]:
    """What was cached is a part of the input, whatever the engine says: no cost is negative."""
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return {
        "input": usage.prompt_tokens,
        "cached_input": min(cached, usage.prompt_tokens),
        "output": usage.completion_tokens or 0,
    }
