"""Figures, ratios and targets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.results import Row, commit, report, table

ROW = Row(name="cost", unit="us", value=30.0, reference="nginx", reference_value=20.0, target=2.0)


@pytest.mark.parametrize(
    ("row", "ratio", "met"),
    [
        (ROW, 1.5, True),
        (Row(name="a", unit="us", value=9, reference="n", reference_value=2, target=4), 4.5, False),
        (Row(name="a", unit="ms", value=0.8, target=1), None, True),
        (Row(name="a", unit="ms", value=1.2, target=1), None, False),
        (Row(name="a", unit="us", value=9, reference="n (not installed)", target=4), None, None),
        (Row(name="a", unit="us", value=9), None, None),
        (Row(name="a", unit="x", value=120, target=100, is_floor=True), None, True),
        (Row(name="a", unit="x", value=90, target=100, is_floor=True), None, False),
        (
            Row(
                name="a",
                unit="ms",
                value=2,
                reference="n",
                reference_value=1,
                target=1.5,
                judges_value=True,
            ),
            2,
            False,
        ),
    ],
)
def test_a_ratio_is_judged_where_there_is_a_reference(
    row: Row, ratio: float | None, *, met: bool | None
) -> None:
    assert (row.ratio, row.met) == (ratio, met)


def test_the_table_and_the_file_say_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = report("cost", [ROW], machine="a machine", folder=tmp_path)
    assert capsys.readouterr().out == table([ROW]) + "\n"
    document = json.loads(path.read_text())
    assert set(document) == {"commit", "machine", "rows"}
    assert document["rows"] == [
        {
            "name": "cost",
            "unit": "us",
            "value": 30.0,
            "reference": "nginx",
            "reference_value": 20.0,
            "litellm": None,
            "target": 2.0,
            "judges_value": False,
            "is_floor": False,
            "ratio": 1.5,
            "met": True,
        }
    ]


def test_the_commit_is_named_and_changes_are_told() -> None:
    name, _, changes = commit().partition("+")
    assert name == "unknown" or (len(name) == 12 and changes in {"", "changes"})
