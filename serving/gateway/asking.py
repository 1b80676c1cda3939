"""What an engine is asked, and what its whole answers mean, in whose names. Pure."""

from __future__ import annotations

import hmac
from functools import lru_cache

import msgspec

from serving.gateway.connection import Garbage
from serving.gateway.errors import BadRequest
from serving.gateway.fields import Wanted
from serving.gateway.prefix import blocks
from serving.gateway.principals import Principal
from serving.gateway.replica import Wish
from serving.gateway.settle import BYTES_PER_TOKEN
from serving.gateway.stream import PLAIN_EXTRAS, Meter, decode_chunk, renamed
from serving.gateway.what import Target

_TOO_LONG = "maximum context length"  # vLLM's words; the code is the one that clients look for
_encode = msgspec.json.Encoder().encode


def cache_salt(key: bytes, principal: Principal, own: str) -> str:
    """Tenants never share a prefix cache; a client's own salt divides its own further."""
    return _salt(key, f"{principal.organization}\n{principal.project}\n{own}")


@lru_cache(maxsize=4096)
def _salt(key: bytes, text: str) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()


def output_limit(wanted: int | None, target: Target) -> int | None:
    """The client's limit, else the model's default; nothing when the context is the tighter one."""
    limit = wanted or target.pool.default_output_tokens
    return limit if limit < target.pool.context_tokens else None


def wish(wanted: Wanted, target: Target, salt: str, limit: int | None) -> Wish:
    """What the choice of a replica goes by."""
    adapter = target.arm.adapter
    return Wish(
        adapter=adapter,
        blocks=blocks(wanted.rest, salt=salt, adapter=adapter),
        prompt_tokens=wanted.prompt_bytes // BYTES_PER_TOKEN,
        output_tokens=(limit or target.pool.default_output_tokens)
        * wanted.choices
        * wanted.prompts,
    )


def may_overflow(wanted: Wanted, limit: int, target: Target) -> bool:
    """Whether prompt and limit together can exceed the context: a token is at least a byte."""
    return wanted.prompt_bytes + limit > target.pool.context_tokens


def engine_body(wanted: Wanted, adapter: str, salt: str, limit: int | None) -> bytes:
    """What goes upstream: our fields first, then the client's that are forwarded."""
    ours: dict[str, object] = {
        "model": adapter,
        "cache_salt": salt,
        "priority": 0,
        "max_tokens": limit,
    }
    if wanted.is_stream:
        ours["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    return _encode(ours)[:-1] + b"," + wanted.rest[1:]


def whole_answer(content: bytes, meter: Meter, *, engine_name: str, name: str) -> bytes:
    """A plain answer in the customer's names, counted. Raises ``Garbage``."""
    chunk = decode_chunk(content)
    if chunk.usage is None or not chunk.choices:
        raise Garbage("an answer without choices or usage")
    if chunk.model != engine_name:
        raise Garbage("answered in another model's name")
    meter.take_whole(chunk)
    return renamed(
        content,
        b'"model":' + _encode(engine_name),
        b'"model":' + _encode(name),
        PLAIN_EXTRAS,
    )


def engine_refusal(content: bytes, *, engine_name: str, name: str) -> BadRequest:
    """The engine's reason for refusing, which is about the request, in the customer's names."""
    try:
        refusal = msgspec.json.decode(content, type=_EngineError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return BadRequest("The model's engine refused the request.", code="engine_refused")
    message = refusal.error.message.replace(engine_name, name)
    code = "context_length_exceeded" if _TOO_LONG in message else "engine_refused"
    return BadRequest(message[:500], code=code, param=refusal.error.param)


class _EngineErrorBody(msgspec.Struct):
    message: str
    param: str | None = None


class _EngineError(msgspec.Struct):
    error: _EngineErrorBody
