"""Answers that a request prescribes: a tool that must be called, JSON after a schema.

The text is the least value that the schema allows, which says nothing about a model and everything
about the shape of its answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

_PIECE_CHARACTERS = 3
_DEPTH = 16

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Prescribed:
    """``words`` are the answer's tokens; of a call to ``tool``, if it is one, the arguments."""

    words: tuple[str, ...]
    tool: str = ""
    finish_reason: str = "stop"


def prescribed(
    tools: list[Any] | None, tool_choice: Any, response_format: dict[str, Any] | None
) -> Prescribed | None:
    """What must be answered; nothing where the model may say what it likes."""
    if tools and tool_choice == "required":
        return _call(tools[0]["function"], "tool_calls")
    if tools and isinstance(tool_choice, dict):
        wanted = tool_choice["function"]["name"]
        found = [t["function"] for t in tools if t["function"]["name"] == wanted]
        return _call(found[0], "stop") if found else None
    kind = (response_format or {}).get("type")
    if kind == "json_schema" and response_format is not None:
        return Prescribed(_words(response_format["json_schema"].get("schema") or {}))
    return Prescribed(_words({"type": "object"})) if kind == "json_object" else None


def _call(function: dict[str, Any], finish_reason: str) -> Prescribed:
    return Prescribed(_words(function.get("parameters") or {}), function["name"], finish_reason)


def _words(schema: dict[str, Any]) -> tuple[str, ...]:
    text = _encode(_least(schema, schema, _DEPTH)).decode()
    return tuple(
        text[start : start + _PIECE_CHARACTERS] for start in range(0, len(text), _PIECE_CHARACTERS)
    )


def _least(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or not depth:
        return None
    if "$ref" in schema:
        found: Any = root
        for step in str(schema["$ref"]).removeprefix("#").split("/")[1:]:
            found = found.get(step) if isinstance(found, dict) else None
        return _least(found, root, depth - 1)
    if schema.get("enum") or "const" in schema:
        return (schema.get("enum") or [schema.get("const")])[0]
    for name in ("anyOf", "oneOf", "allOf"):
        if schema.get(name):
            return _least(schema[name][0], root, depth - 1)
    if schema.get("type", "object") == "object":
        properties = schema.get("properties") or {}
        return {
            name: _least(properties.get(name, {}), root, depth - 1)
            for name in schema.get("required") or ()
        }
    return {"string": "", "array": [], "integer": 0, "number": 0, "boolean": False}.get(
        str(schema.get("type"))
    )
