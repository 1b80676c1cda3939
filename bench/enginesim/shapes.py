"""vLLM's JSON, byte for byte as version 0.32 wrote it when asked the same.

Streams are built from ready-made pieces: a chunk costs one formatting. ``usage`` stands where vLLM
puts it, with the nulls that it leaves in.
"""

from __future__ import annotations

import time
from typing import Any

import msgspec

from .answers import Answer, token_id
from .asks import Ask

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-simulated"

_encode = msgspec.json.Encoder().encode


def error_body(message: str, *, kind: str, status: int, param: str | None = None) -> bytes:
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": status}})


class Stream:
    """The events of one streamed answer."""

    def __init__(self, ask: Ask, *, request_id: str, model: str) -> None:
        self._ask = ask
        self.negative = False  # a fault: usage that counts below zero
        self.stamps = False  # tokens are the instants they leave, for whoever measures the way
        kind, prefix = _kind(ask, stream=True)
        head = _encode(
            {"id": prefix + request_id, "object": kind, "created": int(time.time()), "model": model}
        )
        self._head = b"data: " + head[:-1]

    def first(self, choice: int) -> bytes:
        """The role, which chat sends before any token."""
        usage = self._usage(choice, 0)
        tail = b',"prompt_token_ids":null,"prompt_text":null}\n\n'
        return (
            b'%b,"choices":[{"index":%d,"delta":{"role":"assistant","content":""},"logprobs":null,'
            b'"finish_reason":null}]%b%b' % (self._head, choice, usage, tail)
        )

    def token(self, choice: int, index: int, answer: Answer, *, finish: str | None) -> bytes:
        """Token ``index`` of a choice, counted from 0."""
        ask = self._ask
        text = _encode(str(time.monotonic_ns()) if self.stamps else answer.token(index))
        logprobs = b"null" if ask.logprobs is None else _encode(_logprobs(ask, answer, index, 1))
        reason = b"null" if finish is None else b'"%b"' % finish.encode()
        usage = self._usage(choice, index + 1)
        if not ask.is_chat:
            return (
                b'%b,"choices":[{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b,"stop_reason":null,'
                b'"prompt_token_ids":null,"token_ids":null}]%b}\n\n'
                % (self._head, choice, text, logprobs, reason, usage)
            )
        stop = b"" if finish is None else b',"stop_reason":null'
        delta = b'{"content":%b}' % text
        if ask.prescribed is not None and ask.prescribed.tool:
            delta = self._call(choice, index, text, ask.prescribed.tool)
        return (
            b'%b,"choices":[{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b%b,"token_ids":null}]'
            b"%b}\n\n" % (self._head, choice, delta, logprobs, reason, stop, usage)
        )

    def _call(self, choice: int, index: int, text: bytes, tool: str) -> bytes:
        """A piece of a tool call: its name comes with the first."""
        if index:
            return b'{"content":null,"tool_calls":[{"index":0,"function":{"arguments":%b}}]}' % text
        call = tool_call_id(self._ask, choice).encode()
        return (
            b'{"content":null,"tool_calls":[{"id":"%b","type":"function","index":0,'
            b'"function":{"name":"%b","arguments":%b}}]}' % (call, tool.encode(), text)
        )

    def last(self, tokens: int, *, cached: int | None) -> bytes:
        """The chunk with nothing but the total usage."""
        usage = usage_counts(self._ask.all_prompt_tokens, self.told(tokens))
        if cached is not None:
            usage["prompt_tokens_details"] = _details(cached, is_chat=self._ask.is_chat)
        return b'%b,"choices":[],"usage":%b,"system_fingerprint":"%b"}\n\n' % (
            self._head,
            _encode(usage),
            FINGERPRINT.encode(),
        )

    def told(self, tokens: int) -> int:
        """What is said of a number of tokens."""
        return -tokens if self.negative else tokens

    def error(self, message: str) -> bytes:
        body = error_body(message, kind="InternalServerError", status=500)
        return b"data: %b\n\n" % body

    def _usage(self, choice: int, tokens: int) -> bytes:
        if not self._ask.continuous_usage:
            return b""
        prompt = self._ask.prompt_tokens[choice // self._ask.n]
        tokens = self.told(tokens)
        details = b',"completion_tokens_details":null' if self._ask.is_chat else b""
        return b',"usage":{"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d%b}' % (
            prompt,
            prompt + tokens,
            tokens,
            details,
        )


def tool_call_id(ask: Ask, choice: int) -> str:
    return f"chatcmpl-tool-{ask.request_id}-{choice}"


DONE = b"data: [DONE]\n\n"


def plain(
    ask: Ask, answers: list[Answer], *, request_id: str, model: str, usage: dict[str, Any]
) -> bytes:
    kind, prefix = _kind(ask, stream=False)
    choice = _chat_choice if ask.is_chat else _completion_choice
    body: dict[str, Any] = {
        "id": prefix + request_id,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "choices": [choice(ask, answer, index) for index, answer in enumerate(answers)],
        "service_tier": None,
        "system_fingerprint": FINGERPRINT,
        "usage": usage,
    }
    if ask.is_chat:
        body |= {"prompt_logprobs": None, "prompt_token_ids": None, "prompt_text": None}
    return _encode(body | {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None})


def plain_usage(ask: Ask, tokens: int, *, cached: int | None) -> dict[str, Any]:
    usage = usage_counts(ask.all_prompt_tokens, tokens)
    details = None
    if cached is not None:
        created = 0 if ask.is_chat else None
        details = {
            "cached_tokens": cached,
            "created_cache_tokens": created,
            "multimodal_tokens": None,
        }
    return usage | {"prompt_tokens_details": details, "completion_tokens_details": None}


def usage_counts(prompt_tokens: int, tokens: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "total_tokens": prompt_tokens + tokens,
        "completion_tokens": tokens,
    }


def model_card(name: str, *, root: str, parent: str | None, context: int | None) -> dict[str, Any]:
    now = int(time.time())
    permission = {
        "id": f"modelperm-{abs(hash(name)):016x}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": root,
        "parent": parent,
        "max_model_len": context,
        "permission": [permission],
    }


def _kind(ask: Ask, *, stream: bool) -> tuple[str, str]:
    if not ask.is_chat:
        return "text_completion", "cmpl-"
    return ("chat.completion.chunk" if stream else "chat.completion"), "chatcmpl-"


def _details(cached: int, *, is_chat: bool) -> dict[str, int]:
    details = {"cached_tokens": cached}
    return details | {"created_cache_tokens": 0} if is_chat else details


def _chat_choice(ask: Ask, answer: Answer, index: int) -> dict[str, Any]:
    text = answer.text(ask.tokens)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": text,
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    if ask.prescribed is not None and ask.prescribed.tool:
        function = {"name": ask.prescribed.tool, "arguments": text}
        call = {"id": tool_call_id(ask, index), "type": "function", "function": function}
        message |= {"content": "", "tool_calls": [call]}
    message["reasoning"] = None
    return {
        "index": index,
        "message": message,
        "logprobs": None if ask.logprobs is None else _logprobs(ask, answer, 0, ask.tokens),
        "finish_reason": ask.finish_reason,
        "stop_reason": None,
        "token_ids": None,
        "routed_experts": None,
    }


def _completion_choice(ask: Ask, answer: Answer, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "text": answer.text(ask.tokens),
        "logprobs": None if ask.logprobs is None else _logprobs(ask, answer, 0, ask.tokens),
        "finish_reason": ask.finish_reason,
        "stop_reason": None,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }


def _logprobs(ask: Ask, answer: Answer, start: int, count: int) -> dict[str, Any]:
    places = range(start, start + count)
    if ask.is_chat:
        return {"content": [_chat_logprob(ask, answer, place) for place in places]}
    tops = [
        {
            _named(ask, word): value
            for word, value in answer.candidates(place, (ask.logprobs or 0) + 1)
        }
        for place in places
    ]
    tokens = [_named(ask, answer.token(place)) for place in places]
    return {
        "text_offset": [len(answer.text(place)) for place in places],
        "token_logprobs": [answer.logprob(place, 0) for place in places],
        "tokens": tokens,
        "top_logprobs": tops,
    }


def _chat_logprob(ask: Ask, answer: Answer, place: int) -> dict[str, Any]:
    entries = [
        {"token": _named(ask, word), "logprob": value, "bytes": list(word.encode())}
        for word, value in answer.candidates(place, max(1, ask.logprobs or 0))
    ]
    return entries[0] | {"top_logprobs": entries[: ask.logprobs or 0]}


def _named(ask: Ask, word: str) -> str:
    return f"token_id:{token_id(word)}" if ask.tokens_as_ids else word
