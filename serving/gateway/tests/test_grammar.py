from __future__ import annotations

from typing import Any

import pytest

from serving.gateway.errors import BadRequest
from serving.gateway.grammar import Function, Tool, check_tools


def check(schema: dict[str, Any]) -> None:
    check_tools([Tool(type="function", function=Function(name="f", parameters=schema))])


TREE = {
    "type": "object",
    "properties": {
        "left": {"$ref": "#"},
        "right": {"$ref": "#/$defs/leaf"},
        "a/b": {"type": "null"},
    },
    "$defs": {"leaf": {"anyOf": [{"$ref": "#"}, {"$ref": "#/properties/a~1b"}]}},
}


@pytest.mark.parametrize(
    "schema",
    [
        TREE,
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}},
        {"anyOf": [{"type": "string"}, {"$ref": "#/anyOf/0"}]},
        {"type": "object", "properties": {"$ref": {"type": "string"}}},
    ],
)
def test_references_that_end_are_welcome(schema: dict[str, Any]) -> None:
    check(schema)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"$ref": "#"}, "leads to itself"),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, "leads to itself"),
        (
            {"items": {"$ref": "#/$defs/a"},
             "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
            "leads to itself",
        ),
        ({"$ref": "#/$defs/a"}, "to nothing"),
        ({"anyOf": [{"$ref": "#/anyOf/7"}]}, "to nothing"),
        ({"$ref": "#anchor"}, "may only refer to itself"),
        ({"$ref": "http://127.0.0.1/"}, "may only refer to itself"),
    ],
)  # fmt: skip
def test_references_that_lead_astray_are_refused(schema: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRequest, match=why):
        check(schema)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$",
        r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$",
        r"([0-9a-f]{1,4}:){7}[0-9a-f]{1,4}",
        r"(a+)+$",
        r"[]{}()]{128}",
        r"\{9999\}",
        r"[^\]{9999}]",
        r".{0,128}",
        r"[a-z]{1,128}[0-9]{1,120}",
    ],
)
def test_ordinary_patterns_are_welcome(pattern: str) -> None:
    check({"type": "string", "pattern": pattern})


@pytest.mark.parametrize(
    "pattern",
    [
        r"a{129}",
        r"a{1,200}",
        r"a{200,}",
        r"((a{1,10}){1,10}){1,10}",
        r"(abc|de){100}",
        r"\d{100}" * 3,
    ],
)
def test_patterns_that_grow_when_written_out_are_refused(pattern: str) -> None:
    with pytest.raises(BadRequest, match="a count above 128"):
        check({"type": "string", "pattern": pattern})
