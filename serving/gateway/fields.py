"""What a request body may say: three lists, checked while decoding. Pure.

Forwarded: the fields of ``Sampling``, ``Chat`` and ``Completion`` above the mark in each.
Ignored: accepted so that stock clients work, never sent on (``IGNORED``).
Refused by name: what engines would obey and customers may not say (``REFUSED``).
Any other field is refused as unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from serving.gateway.errors import BadRequest
from serving.gateway.grammar import (
    NamedTool,
    ResponseFormat,
    Tool,
    check_response_format,
    check_tools,
)

MAX_CHOICES = 16
MAX_PROMPTS = 64
MAX_TOKENS = 2**31 - 1
MAX_STOP = 16
MAX_BIASES = 300
_MAX_SMALL_BYTES = 16 * 1024

Body = TypeVar("Body", bound="Sampling")

IGNORED: Final = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
REFUSED: Final = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "api_base",
        "api_key",
        "audio",
        "bad_words",
        "base_url",
        "best_of",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "documents",
        "echo",
        "function_call",
        "functions",
        "guided_choice",
        "guided_grammar",
        "guided_json",
        "guided_regex",
        "kv_transfer_params",
        "logits_processors",
        "lora_request",
        "media_io_kwargs",
        "mm_processor_kwargs",
        "modalities",
        "priority",
        "prompt_embeds",
        "prompt_logprobs",
        "request_id",
        "return_token_ids",
        "return_tokens_as_token_ids",
        "structured_outputs",
        "suffix",
        "truncate_prompt_tokens",
        "use_beam_search",
        "vllm_xargs",
        "web_search_options",
    }
)

Text = Annotated[str, Meta(min_length=1, max_length=256)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKENS)]
Limit = Annotated[int, Meta(ge=1, le=MAX_TOKENS)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class StreamOptions(Struct, forbid_unknown_fields=True):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Part(Struct, forbid_unknown_fields=True):
    """A piece of a message. Media would be fetched by the engine, so only text is taken."""

    type: Literal["text"]
    text: str


class CalledFunction(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str


class ToolCall(Struct, forbid_unknown_fields=True):
    id: str
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | UnsetType | None = UNSET


class Message(Struct, forbid_unknown_fields=True):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | UnsetType | None = UNSET
    name: str | UnsetType | None = UNSET
    tool_calls: list[ToolCall] | UnsetType | None = UNSET
    tool_call_id: str | UnsetType | None = UNSET
    # Ignored: what an earlier answer of ours holds and a client sends back with it.
    refusal: Any = UNSET
    annotations: Any = UNSET
    audio: Any = UNSET
    function_call: Any = UNSET
    reasoning: Any = UNSET
    reasoning_content: Any = UNSET


class Sampling(Struct, forbid_unknown_fields=True, kw_only=True):
    temperature: Annotated[float, Meta(ge=0, le=2)] | UnsetType | None = UNSET
    top_p: Annotated[float, Meta(gt=0, le=1)] | UnsetType | None = UNSET
    top_k: Annotated[int, Meta(ge=-1, le=MAX_TOKENS)] | UnsetType | None = UNSET
    min_p: Annotated[float, Meta(ge=0, le=1)] | UnsetType | None = UNSET
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | UnsetType | None = UNSET
    presence_penalty: Penalty | UnsetType | None = UNSET
    frequency_penalty: Penalty | UnsetType | None = UNSET
    repetition_penalty: Annotated[float, Meta(gt=0, le=2)] | UnsetType | None = UNSET
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | UnsetType | None = UNSET
    min_tokens: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | UnsetType | None = UNSET
    ignore_eos: bool | UnsetType = UNSET
    stop: Raw | UnsetType = UNSET
    stop_token_ids: Raw | UnsetType = UNSET
    logit_bias: Raw | UnsetType = UNSET
    stream: bool | UnsetType | None = UNSET
    # Taken out: what goes upstream in their place is ours.
    model: str | UnsetType = UNSET
    max_tokens: Limit | UnsetType | None = UNSET
    stream_options: StreamOptions | UnsetType | None = UNSET
    cache_salt: Annotated[str, Meta(min_length=1, max_length=256)] | UnsetType | None = UNSET
    # Ignored
    metadata: Raw | UnsetType = UNSET
    prediction: Raw | UnsetType = UNSET
    prompt_cache_key: Raw | UnsetType = UNSET
    prompt_cache_retention: Raw | UnsetType = UNSET
    safety_identifier: Raw | UnsetType = UNSET
    service_tier: Raw | UnsetType = UNSET
    store: Raw | UnsetType = UNSET
    user: Raw | UnsetType = UNSET
    verbosity: Raw | UnsetType = UNSET


class Chat(Sampling, kw_only=True):
    messages: Annotated[list[Message], Meta(min_length=1, max_length=4096)]
    logprobs: bool | UnsetType | None = UNSET
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | UnsetType | None = UNSET
    tools: Annotated[list[Tool], Meta(max_length=128)] | UnsetType | None = UNSET
    tool_choice: Literal["none", "auto", "required"] | NamedTool | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    response_format: ResponseFormat | UnsetType | None = UNSET
    # Taken out
    max_completion_tokens: Limit | UnsetType | None = UNSET


class Completion(Sampling, kw_only=True):
    prompt: str | list[str | TokenId | list[TokenId]]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | UnsetType | None = UNSET


@dataclass(slots=True, kw_only=True)
class Wanted:
    """What a client asks for, checked. ``rest`` is the JSON of the forwarded fields."""

    path: str
    model: str
    is_stream: bool
    wants_usage: bool
    salt: str
    limit: int | None  # of output tokens per choice; None where the client said nothing
    choices: int  # per prompt
    prompts: int
    prompt_bytes: int  # of the whole body; tokens of the prompt are fewer
    rest: bytes
    has_tools: bool = False
    is_constrained: bool = False  # a grammar of the client's shapes the answer
    client_seconds: float | None = None  # how long its client waits, where it says so


def parse_chat(body: bytes) -> Wanted:
    chat = _decode(_chat, body)
    for message in chat.messages:
        _drop_echoes(message)
    if isinstance(chat.tools, list):
        check_tools(chat.tools)
    if isinstance(chat.response_format, ResponseFormat):
        check_response_format(chat.response_format)
    limit = chat.max_completion_tokens or chat.max_tokens
    chat.max_completion_tokens = UNSET
    wanted = _wanted("/v1/chat/completions", chat, limit, prompts=1, prompt_bytes=len(body))
    wanted.has_tools = bool(chat.tools)
    wanted.is_constrained = wanted.has_tools or isinstance(chat.response_format, ResponseFormat)
    return wanted


def parse_completion(body: bytes) -> Wanted:
    completion = _decode(_completion, body)
    prompts = _prompt_count(completion.prompt)
    return _wanted(
        "/v1/completions",
        completion,
        completion.max_tokens,
        prompts=prompts,
        prompt_bytes=len(body),
    )


_chat = msgspec.json.Decoder(Chat)
_completion = msgspec.json.Decoder(Completion)
_stop = msgspec.json.Decoder(Text | Annotated[list[Text], Meta(max_length=MAX_STOP)] | None)
_stop_tokens = msgspec.json.Decoder(Annotated[list[TokenId], Meta(max_length=MAX_STOP)] | None)
_bias = msgspec.json.Decoder(
    Annotated[
        dict[
            Annotated[str, Meta(pattern=r"^[0-9]{1,10}$")], Annotated[float, Meta(ge=-100, le=100)]
        ],
        Meta(max_length=MAX_BIASES),
    ]
    | None
)
_encode = msgspec.json.Encoder().encode
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(.*?)`(?: - at `\$(.*)`)?", re.DOTALL)
_AT = re.compile(r"(.*) - at `\$\.?(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`")


def _wanted(
    path: str,
    body: Sampling,
    limit: int | UnsetType | None,
    *,
    prompts: int,
    prompt_bytes: int,
) -> Wanted:
    _check_small(body)
    if not isinstance(body.model, str) or not body.model:
        raise BadRequest("The field 'model' is needed.", param="model", rule="field_missing")
    options = body.stream_options
    wanted = Wanted(
        path=path,
        model=body.model,
        is_stream=body.stream is True,
        wants_usage=isinstance(options, StreamOptions) and options.include_usage is True,
        salt=body.cache_salt or "",
        limit=limit or None,
        choices=body.n or 1,
        prompts=prompts,
        prompt_bytes=prompt_bytes,
        rest=b"",
    )
    body.model = body.max_tokens = body.stream_options = body.cache_salt = UNSET
    body.metadata = body.prediction = body.prompt_cache_key = body.prompt_cache_retention = UNSET
    body.safety_identifier = body.service_tier = body.store = body.user = body.verbosity = UNSET
    wanted.rest = _encode(body)
    return wanted


def _check_small(body: Sampling) -> None:
    """Lists that stay undecoded until their size is known, so that a huge one costs nothing."""
    if body.stop is not UNSET:
        _decode_small(_stop, body.stop, "stop")
    if body.stop_token_ids is not UNSET:
        _decode_small(_stop_tokens, body.stop_token_ids, "stop_token_ids")
    if body.logit_bias is not UNSET:
        _decode_small(_bias, body.logit_bias, "logit_bias")


def _decode_small(decoder: msgspec.json.Decoder[Any], raw: Raw, name: str) -> None:
    if len(memoryview(raw)) > _MAX_SMALL_BYTES:
        raise BadRequest(f"The field '{name}' is too large.", param=name, rule="field_size")
    try:
        decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        text, _, _ = str(error).partition(" - at ")
        raise BadRequest(f"'{name}': {text}.", param=name, rule="field_value") from error


def _drop_echoes(message: Message) -> None:
    message.refusal = message.annotations = message.audio = UNSET
    message.function_call = message.reasoning = message.reasoning_content = UNSET
    if not message.tool_calls:
        message.tool_calls = UNSET


def _prompt_count(prompt: str | list[Any]) -> int:
    if isinstance(prompt, str):
        return 1
    kinds = {type(item) for item in prompt}
    if len(kinds) != 1:
        raise BadRequest(
            "'prompt' must be a text, a list of texts, or token ids.",
            param="prompt",
            rule="field_value",
        )
    count = 1 if kinds == {int} else len(prompt)
    if count > MAX_PROMPTS:
        raise BadRequest(
            f"'prompt' holds more than {MAX_PROMPTS} prompts.", param="prompt", rule="field_value"
        )
    return count


def _decode(decoder: msgspec.json.Decoder[Body], body: bytes) -> Body:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"The body is not valid JSON: {error}.", rule="json") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.", rule="json_depth") from None


def _field_error(text: str) -> BadRequest:
    """msgspec says what is wrong and where; this says it in the words of our answers."""
    if match := _UNKNOWN_FIELD.fullmatch(text):
        return _unwelcome(match[1], (match[2] or "").lstrip("."))
    if match := _MISSING.match(text):
        return BadRequest(
            f"The field '{match[1]}' is needed.", param=match[1], rule="field_missing"
        )
    if match := _AT.fullmatch(text):
        name = match[2]
        return BadRequest(f"'{name}': {_plain(match[1])}.", param=name or None, rule="field_value")
    return BadRequest(f"The body is wrong: {_plain(text)}.", rule="field_value")


def _unwelcome(name: str, parent: str) -> BadRequest:
    name = name[:64]
    param = f"{parent}.{name}" if parent else name
    if not parent and name in REFUSED:
        return BadRequest(
            f"The field '{name}' is not accepted here. Remove it.",
            param=param,
            code="field_refused",
            rule="field_refused",
        )
    return BadRequest(
        f"Unknown field '{param}'. Remove it.",
        param=param,
        code="unknown_field",
        rule="field_unknown",
    )


def _plain(text: str) -> str:
    return text.replace("`", "")[:200].removesuffix(".").replace("E", "e", 1)
