"""From a request's JSON to what the engine has to do, or to a refusal in vLLM's words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from .cache import BYTES_PER_TOKEN, token_count
from .constrained import Prescribed, prescribed
from .options import Options

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
_COMPLETION_DEFAULT_TOKENS = 16
_SALT_LENGTH = 128
_SALT_RESERVED = frozenset("@/\\\0")


class Refused(Exception):
    """The engine answers with an error; ``kind`` is vLLM's word for it."""

    def __init__(
        self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None
    ) -> None:
        self.status = status
        self.kind = kind
        self.message = message
        self.param = param
        super().__init__(message)


class Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = True
    continuous_usage_stats: bool | None = False


class _Body(msgspec.Struct, kw_only=True):
    model: str | None = None
    max_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    ignore_eos: bool = False
    cache_salt: str | None = None
    request_id: str | None = None
    return_tokens_as_token_ids: bool | None = None


class ChatBody(_Body, kw_only=True):
    messages: list[Message]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None


class CompletionBody(_Body, kw_only=True):
    prompt: str | list[Any]
    logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request, understood. Each prompt gets ``n`` choices of ``tokens`` tokens, when nothing
    goes wrong.
    """

    is_chat: bool
    model: str | None
    prompts: tuple[bytes, ...]
    prompt_tokens: tuple[int, ...]
    n: int
    max_tokens: int
    tokens: int
    finish_reason: str
    stream: bool
    include_usage: bool
    continuous_usage: bool
    logprobs: int | None  # candidates per token; None for no logprobs at all
    tokens_as_ids: bool
    salt: str
    request_id: str
    prescribed: Prescribed | None = None

    @property
    def all_prompt_tokens(self) -> int:
        return sum(self.prompt_tokens)


_decode_chat = msgspec.json.Decoder(ChatBody).decode
_decode_completion = msgspec.json.Decoder(CompletionBody).decode


def understand(path: str, raw: bytes, *, options: Options, request_id: str) -> Ask:
    """Raises ``Refused``."""
    try:
        if path == CHAT_PATH:
            return _chat(_decode_chat(raw), options, request_id)
        return _completion(_decode_completion(raw), options, request_id)
    except msgspec.DecodeError as error:
        raise malformed(error) from error


def malformed(error: msgspec.DecodeError) -> Refused:
    return Refused(400, f"1 validation error:\n  {error}", kind="Bad Request", param="body")


def _chat(body: ChatBody, options: Options, request_id: str) -> Ask:
    if not body.messages:
        raise Refused(
            400,
            "Cannot apply chat template to an empty conversation. Provide at least one message.",
        )
    if body.top_logprobs and not body.logprobs:
        raise _broken("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    prompt = b"".join([_rendered(message) for message in body.messages]) + b"<|assistant|>"
    ask = _ask(
        body,
        options,
        request_id or body.request_id or "",
        is_chat=True,
        prompts=(prompt,),
        wanted=body.max_tokens
        if body.max_completion_tokens is None
        else body.max_completion_tokens,
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
    )
    return _after(ask, prescribed(body.tools, body.tool_choice, body.response_format))


def _after(ask: Ask, prescription: Prescribed | None) -> Ask:
    if prescription is None:
        return ask
    whole = len(prescription.words)
    return replace(
        ask,
        prescribed=prescription,
        tokens=min(whole, ask.max_tokens),
        finish_reason=prescription.finish_reason if whole <= ask.max_tokens else "length",
    )


def _completion(body: CompletionBody, options: Options, request_id: str) -> Ask:
    return _ask(
        body,
        options,
        request_id or body.request_id or "",
        is_chat=False,
        prompts=_prompts(body.prompt),
        wanted=_COMPLETION_DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens,
        logprobs=body.logprobs,
    )


def _ask(  # noqa: PLR0913 - what the two kinds of request differ in
    body: _Body,
    options: Options,
    request_id: str,
    *,
    is_chat: bool,
    prompts: tuple[bytes, ...],
    wanted: int | None,
    logprobs: int | None,
) -> Ask:
    _check(body)
    prompt_tokens = tuple([token_count(prompt) for prompt in prompts])
    max_tokens = _output_limit(wanted, max(prompt_tokens), options.max_model_len)
    ends_itself = options.tokens <= max_tokens and not body.ignore_eos
    usage = body.stream_options if body.stream else None
    wants_usage = usage is not None and bool(usage.include_usage)
    wants_all = wants_usage and usage is not None and bool(usage.continuous_usage_stats)
    forced = options.enable_force_include_usage
    return Ask(
        is_chat=is_chat,
        model=body.model,
        prompts=prompts,
        prompt_tokens=prompt_tokens,
        n=body.n or 1,
        max_tokens=max_tokens,
        tokens=options.tokens if ends_itself else max_tokens,
        finish_reason="stop" if ends_itself else "length",
        stream=bool(body.stream),
        include_usage=forced or wants_usage,
        continuous_usage=forced or wants_all,
        logprobs=logprobs,
        tokens_as_ids=bool(body.return_tokens_as_token_ids),
        salt=body.cache_salt or "",
        request_id=request_id,
    )


def _check(body: _Body) -> None:
    if body.stream_options is not None and not body.stream:
        raise _broken("Stream options can only be defined when `stream=True`.", "stream_options")
    if body.n is not None and body.n < 1:
        raise Refused(400, f"n must be at least 1, got {body.n}.")
    salt = body.cache_salt
    if salt == "":
        raise _broken(
            "Parameter 'cache_salt' must be a non-empty string if provided.", "cache_salt"
        )
    if salt and (len(salt) > _SALT_LENGTH or not _SALT_RESERVED.isdisjoint(salt)):
        raise _broken(
            "Parameter 'cache_salt' must be at most 128 characters and must not contain '@', '/', "
            "'\\\\', or NUL.",
            "cache_salt",
        )


def _output_limit(wanted: int | None, prompt_tokens: int, context: int) -> int:
    if wanted is not None and wanted < 1:
        raise _broken(f"max_tokens must be at least 1, got {wanted}.", "max_tokens")
    if wanted is not None and wanted > context:
        raise _broken(
            f"max_tokens={wanted} cannot be greater than max_model_len={context}. "
            "Please request fewer output tokens.",
            "max_tokens",
        )
    asked = prompt_tokens + (wanted or 1)
    if asked > context:
        raise _broken(
            f"This model's maximum context length is {context} tokens. However, you requested "
            f"{wanted or 1} output tokens and your prompt contains {prompt_tokens} input tokens, "
            f"for a total of {asked} tokens.",
            "input_tokens",
        )
    return context - prompt_tokens if wanted is None else wanted


def _broken(message: str, param: str) -> Refused:
    return Refused(400, f"{message} (parameter={param})", param=param)


def _rendered(message: Message) -> bytes:
    content = message.content
    if isinstance(content, list):
        content = "".join([str(part.get("text", "")) for part in content])
    return f"<|{message.role}|>{content or ''}\n".encode()


def _prompts(prompt: str | list[Any]) -> tuple[bytes, ...]:
    """A text, token ids, or a list of either."""
    if isinstance(prompt, str):
        return (prompt.encode(),)
    if prompt and all(isinstance(token, int) for token in prompt):
        return (b"".join([token.to_bytes(BYTES_PER_TOKEN, "big") for token in prompt]),)
    prompts = tuple(
        [one for item in prompt if isinstance(item, (str, list)) for one in _prompts(item)]
    )
    if not prompts:
        raise Refused(400, "Either prompt or prompt_embeds must be provided and non-empty.")
    return prompts
