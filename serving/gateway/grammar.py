"""What may constrain an answer: tools and JSON schemas, bounded before an engine sees them. Pure.

A schema is the customer's program for the engine's grammar compiler, so its size and its regular
expressions have limits here; whether it makes sense is the engine's to say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from serving.gateway.errors import BadRequest

MAX_DEPTH = 32
MAX_NODES = 2_000
MAX_TEXT = 64 * 1024
MAX_PATTERN = 256
# Measured with the grammar compiler of vLLM 0.32: a count above 128 fails there (HTTP 500), and
# places written out cost time faster than their number grows (512 of '[^x]': 17 s).
MAX_COUNT = 128
MAX_STATES = 256  # of a pattern whose counted repetitions are written out
_COUNT = re.compile(r"\{(\d*)(?:,(\d*))?\}")
_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Function(Struct, forbid_unknown_fields=True):
    name: Name
    description: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET


class Tool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: Function


class NamedFunction(Struct, forbid_unknown_fields=True):
    name: Name


class NamedTool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: NamedFunction


class Schema(Struct, forbid_unknown_fields=True):
    name: Name
    description: str | UnsetType | None = UNSET
    schema: dict[str, Any] | UnsetType | None = UNSET
    strict: bool | UnsetType | None = UNSET


class ResponseFormat(Struct, forbid_unknown_fields=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | UnsetType | None = UNSET


def check_tools(tools: list[Tool]) -> None:
    for index, tool in enumerate(tools):
        if isinstance(tool.function.parameters, dict):
            _check_schema(tool.function.parameters, f"tools[{index}].function.parameters")


def check_response_format(wanted: ResponseFormat) -> None:
    if not isinstance(wanted.json_schema, Schema):
        if wanted.type == "json_schema":
            raise _refused("response_format.json_schema", "is needed for this type")
        return
    if isinstance(wanted.json_schema.schema, dict):
        _check_schema(wanted.json_schema.schema, "response_format.json_schema.schema")


def _check_schema(schema: dict[str, Any], param: str) -> None:
    text = 0
    for nodes, (value, depth) in enumerate(_walk(schema), start=1):
        if depth > MAX_DEPTH:
            raise _refused(param, f"is nested deeper than {MAX_DEPTH}")
        if nodes > MAX_NODES:
            raise _refused(param, f"has more than {MAX_NODES} values")
        if isinstance(value, str):
            text += len(value)
        elif isinstance(value, dict):
            text += sum(map(len, value))
            _check_keywords(value, param)
        if text > MAX_TEXT:
            raise _refused(param, f"has more than {MAX_TEXT} characters")
    _check_references(schema, param)


def _walk(root: Any) -> Iterator[tuple[Any, int]]:
    waiting = [(root, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield value, depth
        if isinstance(value, dict):
            waiting.extend((child, depth + 1) for child in value.values())
        elif isinstance(value, list):
            waiting.extend((child, depth + 1) for child in value)


def _check_references(root: dict[str, Any], param: str) -> None:
    """Each must end at something: engines answer 500 to one that leads to itself or nowhere."""
    good: set[str] = set()
    for start, _ in _walk(root):
        value, way = start, []
        while isinstance(value, dict) and isinstance(value.get("$ref"), str):
            reference = value["$ref"]
            if reference in good:
                break
            if reference in way:
                raise _refused(param, f"has a '$ref' that leads to itself: '{reference[:64]}'")
            way.append(reference)
            value = _referred(root, reference, param)
        good.update(way)


def _referred(root: Any, reference: str, param: str) -> Any:
    if reference != "#" and not reference.startswith("#/"):
        raise _refused(param, "may only refer to itself ('$ref' beginning with '#/')")
    found = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        else:
            raise _refused(param, f"has a '$ref' to nothing: '{reference[:64]}'")
    return found


def _check_keywords(schema: dict[str, Any], param: str) -> None:
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        _check_pattern(pattern, param)


def _check_pattern(pattern: str, param: str) -> None:
    if len(pattern) > MAX_PATTERN:
        raise _refused(param, f"has a pattern longer than {MAX_PATTERN} characters")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise _refused(param, "has a pattern that is no regular expression") from error
    if _states(pattern) > MAX_STATES:
        raise _refused(
            param,
            f"has a pattern with a count above {MAX_COUNT}, or of more than {MAX_STATES} places"
            " when counts are written out; bound lengths with 'maxLength'",
        )


def _states(pattern: str) -> int:
    """How many places a pattern has once its counted repetitions are written out.

    ``before`` and ``last``: what stands in the group at hand, and its last atom, which a count
    multiplies.
    """
    outer: list[int] = []
    before = last = at = 0
    while at < len(pattern):
        sign = pattern[at]
        width = 1
        if sign == "(":
            outer.append(before + last)
            before = last = 0
        elif sign == ")" and outer:
            before, last = outer.pop(), before + last
        elif sign == "{" and (count := _COUNT.match(pattern, at)):
            times = max(1, int(count[2] or count[1] or 1))
            last *= times if times <= MAX_COUNT else MAX_STATES + 1
            width = len(count[0])
        elif sign not in "*+?|^$":
            before, last = before + last, 1
            matched = _CLASS.match(pattern, at) if sign == "[" else None
            width = len(matched[0]) if matched else 1 + (sign == "\\")
        at += width
    return before + last


def _refused(param: str, why: str) -> BadRequest:
    return BadRequest(f"'{param}' {why}.", param=param, rule="schema")
