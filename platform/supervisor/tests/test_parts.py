from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import SpecInvalid
from supervisor.parts import Part, Stack

PART = {"name": "web", "argv": ["run"]}


def stack(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"parts": list(parts), "run": "/run", "logs": "/logs"}


def test_a_stack_survives_being_written_and_read() -> None:
    first = Stack.read(
        {
            **stack({**PART, "env": {"A": "b"}, "health": {"address": "unix:/x", "send": "\0R"}}),
            "listeners": {"host": "127.0.0.1", "port": 80, "count": 2, "metrics_port": 0},
        }
    )
    assert Stack.read(json.loads(first.dump())) == first


def test_the_hash_follows_the_meaning_not_the_order_of_fields() -> None:
    one = Part.read({"name": "a", "argv": ["x"], "env": {"A": "1", "B": "2"}})
    same = Part.read({"env": {"B": "2", "A": "1"}, "argv": ["x"], "name": "a"})
    other = Part.read({"name": "a", "argv": ["x"], "env": {"A": "1", "B": "3"}})
    assert one.spec_hash == same.spec_hash != other.spec_hash


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "No Spaces"}, "name 'No Spaces' must match"),
        ({"name": "../escape"}, "must match"),
        ({"argv": []}, "argv is empty"),
        ({"argv": "run"}, "part.argv must be a list"),
        ({"argv": [1]}, r"part.argv\[0\] must be a text, not int"),
        ({"env": {"A": 1}}, "part.env.A must be a text"),
        ({"once": 1}, "part.once must be true or false"),
        ({"stop_signal": "SIGNOPE"}, "is no signal"),
        ({"surprise": 1}, "no field 'surprise'"),
        ({"health": {}}, "part.health.address is missing"),
    ],
)
def test_a_bad_part_is_refused_by_field(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SpecInvalid, match=sentence):
        Part.read({**PART, **change})


def test_needs_point_backwards_hence_there_is_no_circle() -> None:
    first, second = {**PART, "name": "a"}, {**PART, "name": "b", "needs": ["a"]}
    assert Stack.read(stack(first, second)).parts[1].needs == ("a",)
    with pytest.raises(SpecInvalid, match="b needs a, which is not described before it"):
        Stack.read(stack(second, first))
    with pytest.raises(SpecInvalid, match="described twice"):
        Stack.read(stack(first, first))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{")
    with pytest.raises(SpecInvalid, match=r"spec\.json cannot be read"):
        Stack.load(tmp_path / "spec.json")
